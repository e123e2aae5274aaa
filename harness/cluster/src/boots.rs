//! How long a guest takes from its object to the first answer of its agent. For benchmarks.

use std::time::{Duration, Instant};

use kube::api::DynamicObject;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::agent::console::Console;
use crate::cluster::Kube;
use crate::error::Error;
use crate::names::{RUN_LABEL, prefix};
use crate::objects::Real;
use crate::vm::{GUEST_IMAGE, INSTANCE_KIND, KUBEVIRT};

/// How long each step may take.
const DEADLINE: Duration = Duration::from_secs(240);
const NAME: &str = "guest";
const MEMORY: &str = "96Mi";

impl Kube {
    /// Starts a guest with these annotations, waits until its agent answers on the console, and ends it. Says how long the
    /// answer took. What is left goes with the run's other objects.
    ///
    /// # Errors
    /// Why there is no such guest, or no answer.
    pub async fn guest_answers(&self, annotations: &Value) -> Result<Duration, Error> {
        let namespace = prefix(self.run(), "-guests");
        let labels = json!({ RUN_LABEL: self.run() });
        self.objects
            .apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}))
            .await?;
        let manifest = json!({
            "apiVersion": KUBEVIRT, "kind": INSTANCE_KIND,
            "metadata": {"name": NAME, "namespace": namespace, "labels": labels, "annotations": annotations},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "domain": {
                    "cpu": {"cores": 1}, "memory": {"guest": MEMORY},
                    "devices": {"rng": {}, "interfaces": [{"name": "default", "binding": {"name": "l2bridge"}}]},
                    "firmware": {"kernelBoot": {
                        "kernelArgs": "console=ttyS0 quiet", "container": {"image": GUEST_IMAGE, "kernelPath": "/boot/vmlinuz"},
                    }},
                },
                "networks": [{"name": "default", "pod": {}}],
            },
        });
        let instance = Real::of_manifest(&manifest)?;
        let begun = Instant::now();
        self.objects.apply(&manifest).await?;
        let running = |object: Option<&DynamicObject>| object.is_some_and(|it| it.data["status"]["phase"] == "Running");
        let state = |last: Option<&Value>| last.map_or_else(|| "it is gone".into(), |last| last["status"].to_string());
        self.objects.wait(&instance, "to run", DEADLINE, running, state).await?;
        let agent = Agent::start(Console::new(self.objects.client.clone(), &namespace, NAME, DEADLINE), self.session);
        agent.ready().await.map_err(|source| Error::Agent { pod: format!("VM {namespace}/{NAME}"), source })?;
        let took = begun.elapsed();
        self.objects.delete(&instance).await?;
        self.objects.wait_gone(&instance, DEADLINE).await?;
        Ok(took)
    }
}
