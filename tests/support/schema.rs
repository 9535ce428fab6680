//! As much of JSON Schema as `openapi.json` uses.

use serde_json::Value;

/// A description, and how far a value is from it.
pub struct Description(pub Value);

impl Description {
    /// What is wrong with a value, with its place; empty: nothing.
    pub fn complaints(&self, schema: &Value, value: &Value) -> Vec<String> {
        let mut complaints = Vec::new();
        self.check(schema, value, "$", &mut complaints);
        complaints
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, complaints: &mut Vec<String>) {
        let schema = self.resolved(schema);
        for key in schema.as_object().expect("a schema is an object").keys() {
            const KNOWN: [&str; 14] = [
                "type",
                "properties",
                "required",
                "additionalProperties",
                "items",
                "anyOf",
                "enum",
                "minimum",
                "minItems",
                "maxItems",
                "minLength",
                "format",
                "description",
                "$ref",
            ];
            assert!(KNOWN.contains(&key.as_str()), "the test knows nothing of `{key}` at {at}");
        }
        if let Some(ways) = schema["anyOf"].as_array() {
            let tried: Vec<_> = ways.iter().map(|way| self.complaints(way, value)).collect();
            if tried.iter().all(|complaints| !complaints.is_empty()) {
                complaints.push(format!("{at} is none of {} shapes: {tried:?}", tried.len()));
            }
        }
        if let Some(words) = schema["enum"].as_array()
            && !words.contains(value)
        {
            complaints.push(format!("{at} is {value}, not one of {words:?}"));
        }
        if !schema["type"].is_null() && !is_of(&schema["type"], value) {
            complaints.push(format!("{at} is {value}, not of type {}", schema["type"]));
        }
        if let (Some(least), Some(number)) = (schema["minimum"].as_i64(), value.as_i64())
            && number < least
        {
            complaints.push(format!("{at} is {number}, below {least}"));
        }
        if schema["format"] == "date-time"
            && let Some(text) = value.as_str()
            && text.parse::<jiff::Timestamp>().is_err()
        {
            complaints.push(format!("{at} is {text}, no time"));
        }
        if let Some(elements) = value.as_array() {
            let count = elements.len() as u64;
            if schema["minItems"].as_u64().is_some_and(|least| count < least)
                || schema["maxItems"].as_u64().is_some_and(|most| count > most)
            {
                complaints.push(format!("{at} has {count} elements"));
            }
            for (number, element) in elements.iter().enumerate().filter(|_| !schema["items"].is_null()) {
                self.check(&schema["items"], element, &format!("{at}[{number}]"), complaints);
            }
        }
        let Some(object) = value.as_object() else { return };
        for key in schema["required"].as_array().into_iter().flatten() {
            let key = key.as_str().expect("keys are text");
            if !object.contains_key(key) {
                complaints.push(format!("{at} lacks `{key}`"));
            }
        }
        for (key, value) in object {
            let at = format!("{at}.{key}");
            match (&schema["properties"][key], &schema["additionalProperties"]) {
                (Value::Null, Value::Bool(false)) => complaints.push(format!("{at} is not described")),
                (Value::Null, others @ Value::Object(_)) => self.check(others, value, &at, complaints),
                (Value::Null, _) => {}
                (described, _) => self.check(described, value, &at, complaints),
            }
        }
    }

    fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(path) => {
                let found = self.0.pointer(path.strip_prefix('#').expect("a place in the description"));
                found.unwrap_or_else(|| panic!("{path} leads nowhere"))
            }
            None => schema,
        }
    }
}

fn is_of(types: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().expect("types are text") {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("no type `{other}`"),
    };
    types.as_array().map_or_else(|| is(types), |types| types.iter().any(is))
}
