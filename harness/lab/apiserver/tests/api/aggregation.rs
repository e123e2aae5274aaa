//! A group that somebody else serves: boats, which can only be sunk and called.

use axum::extract::Path;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::{get, put};
use axum::{Json, Router};
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, StatusCode};
use kube::Client;
use kube::client::Body;
use kube::discovery::{Discovery, Scope};
use serde_json::{Value, json};
use udn_lab_apiserver::testing::TestServer;

use super::rights::{client, grant, runner};
use super::{refusal, start};

const GROUP: &str = "sea.example.io";
const BOAT: &str = "/apis/sea.example.io/v1/namespaces/default/boats/titanic";

fn boats() -> Router {
    let kinds = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "sea.example.io/v1", "resources": [
        {"name": "boats/sink", "singularName": "", "namespaced": true, "kind": "", "verbs": ["update"]},
        {"name": "boats/radio", "singularName": "", "namespaced": true, "kind": "", "verbs": ["get"]},
    ]});
    let boat = "/apis/sea.example.io/v1/namespaces/{namespace}/boats/{name}";
    Router::new()
        .route("/apis/sea.example.io/v1", get(async || Json(kinds)))
        .route(&format!("{boat}/sink"), put(sink))
        .route(&format!("{boat}/radio"), get(radio))
}

async fn sink(
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, String) {
    let knows = headers.contains_key("authorization") || headers.contains_key("impersonate-user");
    (StatusCode::ACCEPTED, format!("{namespace}/{name} sinks: {body}, credentials: {knows}"))
}

async fn radio(Path((_, name)): Path<(String, String)>, upgrade: WebSocketUpgrade) -> Response {
    let answer = async move |mut socket: WebSocket| {
        while let Some(Ok(Message::Text(heard))) = socket.recv().await {
            socket.send(Message::Text(format!("{name} heard {heard}").into())).await.unwrap();
        }
    };
    upgrade.protocols(["v5.channel.k8s.io"]).on_upgrade(answer)
}

async fn with_boats() -> (TestServer, Client) {
    let (server, client) = start().await;
    server.server.aggregate(GROUP, "v1", boats());
    (server, client)
}

async fn ask(client: &Client, path: &str) -> Result<Value, kube::Error> {
    client.request(http::Request::get(path).body(Vec::new()).unwrap()).await
}

async fn put_as(client: &Client, path: &str, whom: Option<&str>) -> (u16, String) {
    let mut request = http::Request::put(path);
    if let Some(whom) = whom {
        request = request.header("Impersonate-User", whom);
    }
    let answer = client.send(request.body(Body::from(b"fast".to_vec())).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    (status, String::from_utf8_lossy(&answer.into_body().collect_bytes().await.unwrap()).into_owned())
}

#[tokio::test]
async fn discovery_tells_them_from_when_they_are_served() {
    let (server, client) = start().await;
    let told = async || {
        let plain = Discovery::new(client.clone()).run().await.unwrap().has_group(GROUP);
        let whole = Discovery::new(client.clone()).run_aggregated().await.unwrap().has_group(GROUP);
        (plain, whole)
    };
    assert_eq!(told().await, (false, false));
    assert_eq!(refusal(ask(&client, "/apis/sea.example.io").await).code, 404);
    assert_eq!(refusal(ask(&client, "/apis/sea.example.io/v1").await).code, 404);
    server.server.aggregate(GROUP, "v1", boats());
    assert_eq!(told().await, (true, true));

    let version = json!({"groupVersion": "sea.example.io/v1", "version": "v1"});
    let group = ask(&client, "/apis/sea.example.io").await.unwrap();
    assert_eq!((&group["kind"], &group["versions"]), (&json!("APIGroup"), &json!([version])));
    let kinds = ask(&client, "/apis/sea.example.io/v1").await.unwrap();
    assert_eq!(kinds["resources"][0]["name"], "boats/sink");
    assert_eq!(refusal(ask(&client, "/apis/sea.example.io/v2").await).code, 404);
}

#[tokio::test]
async fn one_document_has_their_kinds_and_those_of_the_server() {
    let (server, client) = with_boats().await;
    server.server.aggregate("broken.example.io", "v1", Router::new());
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let request = http::Request::get("/apis").header("Accept", accept).body(Vec::new()).unwrap();
    let all: Value = client.request(request).await.unwrap();
    let versions = |group: &str| {
        let mut items = all["items"].as_array().unwrap().iter();
        items.find(|item| item["metadata"]["name"] == group).map(|item| item["versions"].clone()).unwrap()
    };
    let none = json!({"group": "", "version": "", "kind": ""});
    let boats = json!({"resource": "boats", "responseKind": none, "scope": "Namespaced", "singularResource": "", "verbs": [],
    "subresources": [
        {"subresource": "sink", "responseKind": none, "verbs": ["update"]},
        {"subresource": "radio", "responseKind": none, "verbs": ["get"]},
    ]});
    assert_eq!(versions(GROUP), json!([{"version": "v1", "freshness": "Current", "resources": [boats]}]));
    assert_eq!(versions("broken.example.io"), json!([{"version": "v1", "freshness": "Stale", "resources": []}]));
    assert_eq!(versions("apps")[0]["freshness"], "Current");
    let discovery = Discovery::new(client).run_aggregated().await.unwrap();
    let (_, apps) = discovery.get("apps").unwrap().recommended_kind("Deployment").unwrap();
    assert_eq!(apps.scope, Scope::Namespaced);
}

#[tokio::test]
async fn requests_and_upgrades_are_handed_over_without_credentials() {
    let (_server, client) = with_boats().await;
    let sunk = (202, "default/titanic sinks: fast, credentials: false".to_owned());
    assert_eq!(put_as(&client, &format!("{BOAT}/sink"), None).await, sunk);
    assert_eq!(put_as(&client, &format!("{BOAT}/radio"), None).await.0, 405);
    assert_eq!(put_as(&client, &format!("{BOAT}/float"), None).await.0, 404);

    let request = http::Request::get(format!("{BOAT}/radio")).body(Vec::new()).unwrap();
    let mut radio = client.connect(request).await.unwrap().into_stream();
    for word in ["one", "two"] {
        radio.send(word.into()).await.unwrap();
        let heard = radio.next().await.unwrap().unwrap();
        assert_eq!(heard.into_text().unwrap().as_str(), format!("titanic heard {word}"));
    }
}

#[tokio::test]
async fn nobody_gets_there_without_token_and_right() {
    let (server, admin) = with_boats().await;
    let (sink, radio) = (format!("{BOAT}/sink"), format!("{BOAT}/radio"));
    let call =
        async |client: &Client| client.connect(http::Request::get(&radio).body(Vec::new()).unwrap()).await.map(drop);
    let stranger = client(&server, "lab-0").await;
    assert_eq!(put_as(&stranger, &sink, None).await.0, 401);
    assert_eq!(refusal(call(&stranger).await).code, 401);

    let runner = runner(&server, &admin).await;
    let (status, said) = put_as(&runner, &sink, None).await;
    assert_eq!(status, 403, "{said}");
    assert!(said.contains(r#"cannot update resource \"boats/sink\" in API group \"sea.example.io\""#), "{said}");
    assert_eq!(refusal(call(&runner).await).code, 403);
    let rule = |resource: &str, verb: &str| json!({"rules": [{"apiGroups": [GROUP], "resources": [resource], "verbs": [verb]}]});
    grant(&admin, "sink", rule("boats/sink", "update")).await;
    assert_eq!(put_as(&runner, &sink, None).await.0, 202);
    assert_eq!(refusal(call(&runner).await).code, 403);
    grant(&admin, "radio", rule("boats/radio", "get")).await;
    call(&runner).await.unwrap();

    let (status, said) = put_as(&admin, &sink, Some("system:serviceaccount:default:runner")).await;
    assert_eq!((status, said.ends_with("credentials: false")), (202, true), "{said}");
    assert_eq!(put_as(&admin, &sink, Some("system:serviceaccount:default:other")).await.0, 403);
}
