//! JSON objects that must be objects. What serde derives for a struct takes an array as well, member by member: a client
//! that sends one has made a mistake, and is told so.

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// A value that came as a JSON object.
#[derive(Debug)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members))
            }
        }

        deserializer.deserialize_map(Members(PhantomData)).map(Self)
    }
}

/// For members: `#[serde(deserialize_with = "object::required")]`.
pub(crate) fn required<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Object::deserialize(from).map(|Object(value)| value)
}

/// For members that may be absent or null: `#[serde(default, deserialize_with = "object::optional")]`.
pub(crate) fn optional<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<Object<T>>::deserialize(from)?.map(|Object(value)| value))
}

/// For lists of objects that may be absent or null.
pub(crate) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<Vec<T>>, D::Error> {
    let list = Option::<Vec<Object<T>>>::deserialize(from)?;
    Ok(list.map(|list| list.into_iter().map(|Object(value)| value).collect()))
}

/// For tags: one whose value is null is not there (contract section 1).
pub(crate) fn tags<'de, D: Deserializer<'de>>(from: D) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    let tags = Option::<BTreeMap<String, Option<String>>>::deserialize(from)?;
    Ok(tags.map(|tags| tags.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Inner {
        n: Option<u8>,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Outer {
        #[serde(default, deserialize_with = "optional")]
        one: Option<Inner>,
        #[serde(default, deserialize_with = "list")]
        many: Option<Vec<Inner>>,
        #[serde(default, deserialize_with = "tags")]
        tags: Option<BTreeMap<String, String>>,
    }

    fn read(json: &str) -> Option<Outer> {
        serde_json::from_str(json).ok().map(|Object(value)| value)
    }

    #[test]
    fn an_array_is_no_object() {
        for empty in ["{}", r#"{"one":null,"many":null,"tags":null,"more":[1]}"#] {
            assert_eq!(read(empty), Some(Outer { one: None, many: None, tags: None }), "{empty}");
        }
        let full = read(r#"{"one":{"n":1},"many":[{"n":2},{}],"tags":{"a":"b","c":null}}"#).unwrap();
        assert_eq!(full.one, Some(Inner { n: Some(1) }));
        assert_eq!(full.many, Some(vec![Inner { n: Some(2) }, Inner { n: None }]));
        assert_eq!(full.tags, Some([("a".to_owned(), "b".to_owned())].into()));
        for wrong in
            ["[]", "[null,null,null]", r#"{"one":[1]}"#, r#"{"many":[[1]]}"#, r#"{"many":{}}"#, r#"{"tags":[]}"#, "1"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
