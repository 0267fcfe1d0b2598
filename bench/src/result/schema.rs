//! The published schema of `result.json` (JSON Schema 2020-12), made from its types, so that the two cannot part.

use schemars::generate::SchemaSettings;

use super::run::RunResult;

/// As it is kept in `bench/result.schema.json`.
pub fn text() -> String {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let schema = generator.into_root_schema_for::<RunResult>();
    let text = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
    text + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::result::run::sample;

    #[test]
    fn what_is_published_is_what_is_written() {
        let published = include_str!("../../result.schema.json");
        assert_eq!(
            published,
            text(),
            "forebay-bench schema > bench/result.schema.json"
        );
    }

    #[test]
    fn results_follow_it_and_damaged_ones_do_not() {
        let schema: Value = serde_json::from_str(&text()).expect("JSON");
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        let whole = serde_json::to_value(sample()).expect("JSON");
        assert!(
            validator.is_valid(&whole),
            "{:?}",
            validator.iter_errors(&whole).next()
        );
        let check = |break_it: fn(&mut Value)| {
            let mut damaged = whole.clone();
            break_it(&mut damaged);
            assert!(!validator.is_valid(&damaged), "{damaged}");
        };
        check(|it| drop(it.as_object_mut().and_then(|it| it.remove("verdict"))));
        check(|it| it["seconds"] = "ten".into());
        check(|it| it["phases"][0]["produced"]["offered"] = (-1).into());
        check(|it| it["metrics"] = Value::Null);
    }
}
