//! A connection from its beginning to its end.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Duration, timeout};

use super::frames::{Away, Control};
use super::incoming::Incoming;
use super::opening::{OpenError, Opening};
use super::outgoing::{Answer, Outgoing, Streams};
use super::reader::{Frame, Frames, ReadError};
use crate::server::channels::{self, Asked, Channels, FAREWELL, Said, Wire};

/// How long a client may take to open its streams, as with a kubelet.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);
/// Answers in flight. Beyond, they are not given: a client that does not read its output shall not stop its own input.
const ANSWERS: usize = 16;

/// Opens the streams that are asked for; None where that fails, which the client has been told then.
pub(super) async fn begin<C>(connection: C, asked: Asked, deadline: Duration) -> Option<Channels>
where
    C: AsyncRead + AsyncWrite + Send + 'static,
{
    let (channels, Wire { typed, resized, said, open }) = Channels::new();
    let (reader, mut writer) = tokio::io::split(connection);
    let (mut frames, mut incoming) = (Frames::new(reader), Incoming::new(typed, resized));
    let mut streams = Streams::default();
    let opening = Opening { frames: &mut frames, writer: &mut writer, streams: &mut streams, incoming: &mut incoming };
    let outcome = timeout(deadline, opening.run(asked)).await;
    let mut outgoing = Outgoing { writer, streams, buffer: BytesMut::new() };
    let late = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a SPDY session did not begin");
            if matches!(error, OpenError::Read(ReadError::Malformed(_))) {
                let _ = timeout(FAREWELL, outgoing.leave(Away::Protocol)).await;
            }
            return None;
        }
        Err(_) => outgoing.streams.missing(asked),
    };
    tokio::spawn(async move {
        serve(frames, incoming, outgoing, said).await;
        drop(open);
    });
    let Some(missing) = late else { return Some(channels) };
    let seconds = deadline.as_secs();
    let message = format!(
        "timed out waiting for client to create streams: none with the header \"streamtype: {missing}\" in {seconds} s"
    );
    tracing::debug!(message, "a SPDY session did not begin");
    channels.finish(&channels::failed(&message)).await;
    None
}

/// Carries both ways until the status is sent, and gives the client time to end the connection then.
async fn serve<R, W>(frames: Frames<R>, incoming: Incoming, mut outgoing: Outgoing<W>, mut said: mpsc::Receiver<Said>)
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin,
{
    let (answers, mut to_give) = mpsc::channel(ANSWERS);
    let reader = tokio::spawn(read(frames, incoming, answers));
    let stop = reader.abort_handle();
    if let Err(error) = outgoing.run(&mut said, &mut to_give).await {
        tracing::debug!(%error, "a SPDY client takes no more");
    }
    // What comes now is for nobody; nobody shall wait until it is taken.
    drop((said, to_give));
    if timeout(FAREWELL, reader).await.is_err() {
        stop.abort();
    }
    let _ = timeout(FAREWELL, outgoing.leave(Away::Fine)).await;
}

/// Reads to the end of the connection.
async fn read<R: AsyncRead + Unpin>(mut frames: Frames<R>, mut incoming: Incoming, answers: mpsc::Sender<Answer>) {
    loop {
        let control = match frames.next().await {
            Ok(Some(Frame::Data { stream, last, bytes })) => {
                incoming.data(stream, bytes, last).await;
                continue;
            }
            Ok(Some(Frame::Control(control))) => control,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "a SPDY connection ended badly");
                if matches!(error, ReadError::Malformed(_)) {
                    let _ = answers.send(Answer::GiveUp).await;
                }
                return;
            }
        };
        let answer = match control {
            // The odd ones are the client's, the others answers.
            Control::Ping(id) if id % 2 == 1 => Answer::Ping(id),
            Control::Open { stream, .. } => Answer::Refuse(stream),
            Control::Reset { stream } => {
                incoming.end(stream);
                Answer::Forget(stream)
            }
            Control::Headers { stream, last: true, .. } => {
                incoming.end(stream);
                continue;
            }
            // A client that opens no more streams may still use those that it has.
            Control::Ping(_) | Control::Headers { .. } | Control::GoAway | Control::Other => continue,
        };
        let _ = answers.try_send(answer);
    }
}
