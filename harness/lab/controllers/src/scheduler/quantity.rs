//! Resource quantities as numbers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Thousandths of the unit (cores or bytes); what cannot be read counts as nothing.
pub(super) fn thousandths(quantity: &Quantity) -> i128 {
    let text = quantity.0.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let Ok(number) = number.parse::<f64>() else { return 0 };
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024.0_f64.powi(2),
        "Gi" => 1024.0_f64.powi(3),
        "Ti" => 1024.0_f64.powi(4),
        "Pi" => 1024.0_f64.powi(5),
        "Ei" => 1024.0_f64.powi(6),
        exponent => match exponent.strip_prefix(['e', 'E']).and_then(|digits| digits.parse::<i32>().ok()) {
            Some(exponent) => 10.0_f64.powi(exponent),
            None => return 0,
        },
    };
    (number * factor * 1000.0).ceil() as i128
}

/// What a pod asks for: the sum of its containers, or one init container if that asks for more.
pub(super) fn requests(pod: &Pod) -> BTreeMap<String, i128> {
    let Some(spec) = pod.spec.as_ref() else { return BTreeMap::new() };
    let mut total: BTreeMap<String, i128> = BTreeMap::new();
    for container in &spec.containers {
        for (name, amount) in of(container) {
            *total.entry(name).or_default() += amount;
        }
    }
    for container in spec.init_containers.iter().flatten() {
        for (name, amount) in of(container) {
            let entry = total.entry(name).or_default();
            *entry = (*entry).max(amount);
        }
    }
    for (name, quantity) in spec.overhead.iter().flatten() {
        *total.entry(name.clone()).or_default() += thousandths(quantity);
    }
    total
}

fn of(container: &Container) -> impl Iterator<Item = (String, i128)> + '_ {
    let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    requests.into_iter().flatten().map(|(name, quantity)| (name.clone(), thousandths(quantity)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_of_all_notations() {
        for (text, expected) in [
            ("1", 1000),
            ("100m", 100),
            ("0.5", 500),
            ("1Ki", 1_024_000),
            ("2k", 2_000_000),
            ("1e3", 1_000_000),
            ("1.5Gi", 1_610_612_736_000),
            ("", 0),
            ("abc", 0),
        ] {
            assert_eq!(thousandths(&Quantity(text.into())), expected, "{text}");
        }
    }
}
