//! JSON as CEL sees it, and CEL programs that remember what they were.

use std::collections::HashMap;
use std::sync::Arc;

use kube::core::cel::KubeCelExt;
use kube::core::cel::cel::common::ast::{EntryExpr, Expr, operators};
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
        let program = Parser::new().enable_optional_syntax(true).parse(source);
        let program = program.map(|mut program| {
            select_like_index(&mut program);
            program
        });
        Self { source: source.to_owned(), program: program.map_err(|error| error.to_string()) }
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

/// Turns `object.?field` into `object[?"field"]`, its equal by the language: of the two, `cel` 0.13 has only the latter
/// find nothing where there is nothing.
fn select_like_index(node: &mut IdedExpr) {
    match &mut node.expr {
        Expr::Call(call) => {
            if call.func_name == operators::OPT_SELECT {
                call.func_name = operators::OPT_INDEX.to_owned();
            }
            call.target.iter_mut().for_each(|target| select_like_index(target));
            call.args.iter_mut().for_each(select_like_index);
        }
        Expr::Comprehension(inner) => {
            for part in [
                &mut inner.iter_range,
                &mut inner.accu_init,
                &mut inner.loop_cond,
                &mut inner.loop_step,
                &mut inner.result,
            ] {
                select_like_index(part);
            }
        }
        Expr::List(list) => list.elements.iter_mut().for_each(select_like_index),
        Expr::Map(map) => map.entries.iter_mut().for_each(|entry| entries(&mut entry.expr)),
        Expr::Struct(fields) => fields.entries.iter_mut().for_each(|entry| entries(&mut entry.expr)),
        Expr::Select(select) => select_like_index(&mut select.operand),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
    }
}

fn entries(entry: &mut EntryExpr) {
    match entry {
        EntryExpr::StructField(field) => select_like_index(&mut field.value),
        EntryExpr::MapEntry(entry) => {
            select_like_index(&mut entry.key);
            select_like_index(&mut entry.value);
        }
    }
}
