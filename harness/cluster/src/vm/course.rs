//! A migration's course from what its objects say. Pure.

use serde_json::Value;
use udn_model::migration::{Mark, Moment};

/// When the guest stopped at the source, by the lab; other targets do not say.
const STOPPED: &str = "lab.udn-conformance.io/stopped-at";
/// When it went on at the target, by the lab.
const RESUMED: &str = "lab.udn-conformance.io/resumed-at";
/// The annotation of the target's pod by which the network is told.
pub(crate) const TARGET_READY: &str = "kubevirt.io/migration-target-ready-timestamp";

/// What is known of a migration's course.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Course {
    pub(super) marks: Vec<Mark>,
    pub(super) pause_ms: Option<u64>,
}

/// Reads the migration, its VM's instance and the target's pod.
pub(super) fn read(migration: &Value, instance: Option<&Value>, target: Option<&Value>) -> Course {
    let mut marks = Vec::new();
    let mut mark = |what: Moment, value: &Value| {
        if let Some((at_us, within_ms)) = value.as_str().and_then(time) {
            marks.push(Mark { at_us, what, within_ms });
        }
    };
    for entry in migration["status"]["phaseTransitionTimestamps"].as_array().into_iter().flatten() {
        let phase = entry["phase"].as_str().unwrap_or_default();
        mark(Moment::Phase(phase.to_owned()), &entry["phaseTransitionTimestamp"]);
    }
    let own = &migration["status"]["migrationState"];
    // Another migration may have come since: the instance tells of its latest only.
    let uid = &migration["metadata"]["uid"];
    let of_instance = instance.map(|it| &it["status"]["migrationState"]).filter(|state| state["migrationUid"] == *uid);
    let state = of_instance.unwrap_or(own);
    mark(Moment::Started, &state["startTimestamp"]);
    mark(Moment::Ended, &state["endTimestamp"]);
    let annotations = &migration["metadata"]["annotations"];
    mark(Moment::Stopped, &annotations[STOPPED]);
    mark(Moment::Resumed, &annotations[RESUMED]);
    if let Some(target) = target {
        mark(Moment::TargetReady, &target["metadata"]["annotations"][TARGET_READY]);
    }
    marks.sort_by_key(|mark| mark.at_us);
    let at = |what: &Moment| marks.iter().find(|mark| mark.what == *what).map(|mark| mark.at_us);
    let pause = at(&Moment::Stopped).zip(at(&Moment::Resumed)).map(|(stopped, resumed)| (resumed - stopped) / 1000);
    Course { pause_ms: pause.and_then(|ms| u64::try_from(ms).ok()), marks }
}

/// Microseconds since the Unix epoch of an RFC 3339 time in UTC, and how exact it is, milliseconds.
fn time(text: &str) -> Option<(i64, u64)> {
    let at = text.parse::<k8s_openapi::jiff::Timestamp>().ok()?;
    let within_ms = if text.contains('.') { 0 } else { 1000 };
    Some((at.as_microsecond(), within_ms))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_labs_moments_are_exact_and_kubevirts_are_not() {
        let migration = json!({
            "metadata": { "uid": "u1", "annotations": {
                STOPPED: "2026-11-22T12:00:01.500000Z", RESUMED: "2026-11-22T12:00:01.512000Z" } },
            "status": { "phase": "Succeeded", "phaseTransitionTimestamps": [
                { "phase": "Running", "phaseTransitionTimestamp": "2026-11-22T12:00:01Z" }] } });
        let instance = json!({ "status": { "migrationState": { "migrationUid": "u1", "startTimestamp": "2026-11-22T12:00:01Z" } } });
        let target = json!({ "metadata": { "annotations": { TARGET_READY: "2026-11-22T12:00:01.515Z" } } });
        let course = read(&migration, Some(&instance), Some(&target));
        assert_eq!(course.pause_ms, Some(12));
        let told: Vec<String> = course.marks.iter().map(|mark| format!("{} {}", mark.what, mark.within_ms)).collect();
        assert_eq!(
            told,
            ["phase Running 1000", "started 1000", "guest stopped 0", "guest runs at the target 0", "network told 0"]
        );
        let other = json!({ "status": { "migrationState": { "migrationUid": "u2", "startTimestamp": "2026-11-22T12:00:09Z" } } });
        assert!(!read(&migration, Some(&other), None).marks.iter().any(|mark| mark.what == Moment::Started));
    }
}
