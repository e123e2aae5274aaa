//! One policy: which writes it is about, and what it says of them.

use kube::core::cel::cel::{Context, Value as Cel};
use serde_json::{Value, json};

use super::Attempt;
use super::cel::{Expression, context, to_cel};
use crate::json::{at, list, text};
use crate::selectors::Selector;

/// Whether match constraints cover a write. Without rules they cover nothing.
pub(super) fn applies(constraints: &Value, attempt: &Attempt<'_>, namespace: Option<&Value>) -> bool {
    let hit = |key: &str| list(constraints, &[key]).iter().any(|rule| rule_covers(rule, attempt));
    hit("resourceRules") && !hit("excludeResourceRules") && selected(constraints, attempt, namespace)
}

/// Whether a binding's limits let a write through to the policy; without rules they only select.
pub(super) fn limits_to(limits: &Value, attempt: &Attempt<'_>, namespace: Option<&Value>) -> bool {
    let rules = list(limits, &["resourceRules"]);
    let hit = |key: &str| list(limits, &[key]).iter().any(|rule| rule_covers(rule, attempt));
    (rules.is_empty() || hit("resourceRules")) && !hit("excludeResourceRules") && selected(limits, attempt, namespace)
}

fn rule_covers(rule: &Value, attempt: &Attempt<'_>) -> bool {
    let any = |key: &str, wanted: &dyn Fn(&str) -> bool| {
        list(rule, &[key]).iter().filter_map(Value::as_str).any(|one| one == "*" || wanted(one))
    };
    let resource = attempt.resource;
    let full = if attempt.subresource.is_empty() {
        resource.plural.clone()
    } else {
        format!("{}/{}", resource.plural, attempt.subresource)
    };
    let resources = list(rule, &["resources"]).iter().filter_map(Value::as_str).any(|pattern| {
        pattern == full
            || pattern == "*/*"
            || (pattern == "*" && attempt.subresource.is_empty())
            || pattern.strip_suffix("/*").is_some_and(|plural| plural == resource.plural)
            || pattern.strip_prefix("*/").is_some_and(|sub| sub == attempt.subresource)
    });
    let names: Vec<&str> = list(rule, &["resourceNames"]).iter().filter_map(Value::as_str).collect();
    let scope = match text(rule, &["scope"]) {
        "Cluster" => !resource.namespaced,
        "Namespaced" => resource.namespaced,
        _ => true,
    };
    any("operations", &|one| one == attempt.operation)
        && any("apiGroups", &|one| one == resource.group)
        && any("apiVersions", &|one| one == resource.version)
        && resources
        && scope
        && (names.is_empty() || names.contains(&attempt.name()))
}

fn selected(constraints: &Value, attempt: &Attempt<'_>, namespace: Option<&Value>) -> bool {
    let by = |key: &str| Selector::of_object(constraints.get(key));
    let objects = by("objectSelector").is_none_or(|selector| {
        selector.is_everything() || [attempt.object, attempt.old].into_iter().flatten().any(|one| selector.matches(one))
    });
    let namespaces = by("namespaceSelector").is_none_or(|selector| {
        selector.is_everything() || namespace.is_none_or(|namespace| selector.matches(namespace))
    });
    objects && namespaces
}

struct Validation {
    rule: Expression,
    message: String,
    message_expression: Option<Expression>,
    reason: &'static str,
    code: u16,
}

/// A policy, compiled.
pub(crate) struct Policy {
    pub(super) version: String,
    fails_closed: bool,
    conditions: Vec<Expression>,
    variables: Vec<(String, Expression)>,
    validations: Vec<Validation>,
}

/// Why a policy denies a write.
pub(super) struct Denial {
    pub(super) message: String,
    pub(super) reason: &'static str,
    pub(super) code: u16,
}

impl Policy {
    pub(super) fn compile(source: &Value) -> Self {
        let spec = &source["spec"];
        let expression = |one: &Value| Expression::compile(text(one, &["expression"]));
        let validation = |one: &Value| {
            let (reason, code) = match text(one, &["reason"]) {
                "Unauthorized" => ("Unauthorized", 401),
                "Forbidden" => ("Forbidden", 403),
                "RequestEntityTooLarge" => ("RequestEntityTooLarge", 413),
                _ => ("Invalid", 422),
            };
            Validation {
                rule: expression(one),
                message: text(one, &["message"]).trim().to_owned(),
                message_expression: at(one, &["messageExpression"])
                    .and_then(Value::as_str)
                    .filter(|text| !text.is_empty())
                    .map(Expression::compile),
                reason,
                code,
            }
        };
        Self {
            version: text(source, &["metadata", "resourceVersion"]).to_owned(),
            fails_closed: text(spec, &["failurePolicy"]) != "Ignore",
            conditions: list(spec, &["matchConditions"]).iter().map(expression).collect(),
            variables: list(spec, &["variables"])
                .iter()
                .map(|one| (text(one, &["name"]).to_owned(), expression(one)))
                .collect(),
            validations: list(spec, &["validations"]).iter().map(validation).collect(),
        }
    }

    pub(super) fn evaluate(
        &self,
        attempt: &Attempt<'_>,
        namespace: Option<&Value>,
        params: Option<&Value>,
    ) -> Result<(), Denial> {
        let mut context = bind(attempt, namespace, params);
        let failed = |what: &str, why: String| {
            if !self.fails_closed {
                return Ok(());
            }
            let message = format!("expression '{what}' resulted in error: {why}");
            Err(Denial { message, reason: "Invalid", code: 422 })
        };
        for condition in &self.conditions {
            match condition.truth(&context) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(why) => return failed(&condition.source, why),
            }
        }
        self.set_variables(&mut context);
        for validation in &self.validations {
            match validation.rule.truth(&context) {
                Ok(true) => {}
                Ok(false) => return Err(validation.denial(&context)),
                Err(why) => failed(&validation.rule.source, why)?,
            }
        }
        Ok(())
    }

    /// Variables may use those before them. One that fails is missing, which fails what uses it, as lazy ones do.
    fn set_variables(&self, context: &mut Context<'_>) {
        let mut values = std::collections::HashMap::new();
        context.add_variable_from_value("variables", Cel::Map(values.clone().into()));
        for (name, expression) in &self.variables {
            if let Ok(value) = expression.evaluate(context) {
                values.insert(name.clone(), value);
                context.add_variable_from_value("variables", Cel::Map(values.clone().into()));
            }
        }
    }
}

impl Validation {
    fn denial(&self, context: &Context<'_>) -> Denial {
        let computed = self.message_expression.as_ref().and_then(|expression| match expression.evaluate(context) {
            Ok(Cel::String(text)) if !text.trim().is_empty() => Some(text.to_string()),
            _ => None,
        });
        let message = computed.unwrap_or_else(|| {
            if self.message.is_empty() {
                format!("failed expression: {}", self.rule.source.trim())
            } else {
                self.message.clone()
            }
        });
        Denial { message, reason: self.reason, code: self.code }
    }
}

fn bind(attempt: &Attempt<'_>, namespace: Option<&Value>, params: Option<&Value>) -> Context<'static> {
    let resource = attempt.resource;
    let kind = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
    let plural = json!({"group": resource.group, "version": resource.version, "resource": resource.plural});
    let request = json!({
        "kind": kind, "resource": plural, "subResource": attempt.subresource,
        "requestKind": kind, "requestResource": plural, "requestSubResource": attempt.subresource,
        "name": attempt.name(), "namespace": attempt.namespace, "operation": attempt.operation,
        "userInfo": attempt.user.info(), "dryRun": attempt.dry_run,
    });
    let mut context = context();
    let or_null = |value: Option<&Value>| value.map_or(Cel::Null, to_cel);
    context.add_variable_from_value("object", or_null(attempt.object));
    context.add_variable_from_value("oldObject", or_null(attempt.old));
    context.add_variable_from_value("request", to_cel(&request));
    context.add_variable_from_value("namespaceObject", or_null(namespace));
    context.add_variable_from_value("params", or_null(params));
    context
}

/// Expressions of a policy that are none, with their paths.
pub(crate) fn broken_expressions(policy: &Value) -> Vec<(String, String, String)> {
    let mut broken = Vec::new();
    for key in ["matchConditions", "variables", "validations"] {
        for (at, one) in list(policy, &["spec", key]).iter().enumerate() {
            for field in ["expression", "messageExpression"] {
                let source = text(one, &[field]);
                let expression = (!source.is_empty()).then(|| Expression::compile(source));
                if let Some(error) = expression.as_ref().and_then(Expression::error) {
                    broken.push((format!("spec.{key}[{at}].{field}"), source.to_owned(), error.to_owned()));
                }
            }
        }
    }
    broken
}
