//! JSON as CEL sees it, and CEL programs that remember what they were.

use std::collections::HashMap;
use std::sync::Arc;

use kube::core::cel::KubeCelExt;
use kube::core::cel::cel::objects::{Key, Map};
use kube::core::cel::cel::parser::Parser;
use kube::core::cel::cel::{Context, IdedExpr, Value as Cel};
use serde_json::Value;

/// A JSON value as CEL sees it. Field names that are words of CEL are also there in their escaped form.
pub(super) fn to_cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(flag) => Cel::Bool(*flag),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Cel::Int(number),
            (None, Some(number)) => Cel::Float(number),
            (None, None) => Cel::Null,
        },
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(to_cel).collect())),
        Value::Object(fields) => {
            let mut map = HashMap::with_capacity(fields.len());
            for (key, value) in fields {
                let value = to_cel(value);
                // `object.metadata.namespace`: `namespace` is a reserved word.
                if key == "namespace" {
                    map.insert(Key::String(Arc::new("__namespace__".into())), value.clone());
                }
                map.insert(Key::String(Arc::new(key.clone())), value);
            }
            Cel::Map(Map { map: Arc::new(map) })
        }
    }
}

/// A context with the functions that Kubernetes adds to CEL.
pub(super) fn context() -> Context<'static> {
    Context::default().with_all()
}

/// An expression, compiled.
pub(super) struct Expression {
    pub(super) source: String,
    program: Result<IdedExpr, String>,
}

impl Expression {
    pub(super) fn compile(source: &str) -> Self {
        // Kubernetes has the syntax of optional values (`object.?field.orValue(x)`) switched on.
        let program = Parser::new().enable_optional_syntax(true).parse(source).map_err(|error| error.to_string());
        Self { source: source.to_owned(), program }
    }

    /// Why the expression is none.
    pub(super) fn error(&self) -> Option<&str> {
        self.program.as_ref().err().map(String::as_str)
    }

    pub(super) fn evaluate(&self, context: &Context<'_>) -> Result<Cel, String> {
        let program = self.program.as_ref().map_err(|error| format!("compilation error: {error}"))?;
        context.resolve(program).map_err(|error| error.to_string())
    }

    pub(super) fn truth(&self, context: &Context<'_>) -> Result<bool, String> {
        match self.evaluate(context)? {
            Cel::Bool(truth) => Ok(truth),
            other => Err(format!("must evaluate to bool, got {:?}", other.type_of())),
        }
    }
}
