//! Actions that rounds go on beside: what holds must hold throughout.

use std::sync::Arc;

use tokio::task::JoinHandle;
use udn_model::plan::PlannedPhase;

use crate::cluster::World;
use crate::options::Options;

/// How rounds are made meanwhile: an answer is waited for no longer than a denied one. A connection that began in the very
/// moment may be lost or turned away (flows are replaced, and what a tracker learnt half-way stays), and is asked for once
/// more; so what shows for certain is what was cut for longer than both attempts take: about three seconds. Flows
/// show what is shorter.
pub(super) fn options(options: &Options) -> Options {
    let most = options.deny_timeout;
    let (open_timeout, second_timeout) = (options.open_timeout.min(most), options.second_timeout.min(most));
    Options { open_timeout, second_timeout, ..options.clone() }
}

/// Actions that are being performed; given up when dropped.
pub(super) struct Acting(JoinHandle<Result<(), String>>);

impl Acting {
    /// Begins with the first.
    pub(super) fn begin(world: &Arc<dyn World>, planned: &PlannedPhase) -> Self {
        let (world, actions) = (world.clone(), planned.actions.clone());
        Self(tokio::spawn(async move {
            for action in &actions {
                world.act(action).await.map_err(|trouble| trouble.to_string())?;
            }
            Ok(())
        }))
    }

    /// Waits for the end of the last; to be called once it said so no more.
    pub(super) async fn end(&mut self) -> Result<(), String> {
        (&mut self.0).await.unwrap_or_else(|error| Err(format!("the actions ended early: {error}")))
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_attempt_is_waited_for_longer_than_a_denied_one() {
        let usual = Options::default();
        let meanwhile = options(&usual);
        assert_eq!((meanwhile.open_timeout, meanwhile.second_timeout), (usual.deny_timeout, usual.deny_timeout));
    }
}
