//! Times as kubectl prints them: how long ago.

use jiff::Timestamp;
use serde_json::Value;

/// Age of a time as Kubernetes writes it, `<unknown>` if it is none.
pub(super) fn of_text(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(then) => human(Timestamp::now().as_second() - then.as_second()),
        Err(_) => "<unknown>".into(),
    }
}

/// Age of an object.
pub(super) fn of(object: &Value) -> Value {
    of_text(object["metadata"]["creationTimestamp"].as_str().unwrap_or_default()).into()
}

/// Seconds as `HumanDuration` of Kubernetes writes them: the shorter the duration, the finer.
pub(super) fn human(seconds: i64) -> String {
    let pair = |a: i64, unit: &str, b: i64, small: &str| {
        if b == 0 { format!("{a}{unit}") } else { format!("{a}{unit}{b}{small}") }
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        ..=-2 => "<invalid>".into(),
        -1 => "0s".into(),
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => pair(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn ages() {
        let shown: Vec<String> =
            [0, 59, 119, 125, 600, 3700, 10_860, 30_000, 180_000, 800_000].iter().map(|s| human(*s)).collect();
        assert_eq!(shown, ["0s", "59s", "119s", "2m5s", "10m", "61m", "3h1m", "8h", "2d2h", "9d"]);
    }
}
