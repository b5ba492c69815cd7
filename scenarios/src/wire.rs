//! How the types with a text form of their own pass through serde and into the JSON schema.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::known::KernelVersion;
use crate::{RangeExpr, Repeat, Size};

/// Anything read from one string.
struct FromText<T> {
    expecting: &'static str,
    number: Option<fn(u64) -> String>,
    kind: std::marker::PhantomData<T>,
}

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for FromText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse()
            .map_err(|e| E::custom(format_args!("`{text}`: {e}")))
    }

    fn visit_u64<E: Error>(self, count: u64) -> Result<T, E> {
        match self.number {
            Some(form) => self.visit_str(&form(count)),
            None => Err(E::invalid_type(Unexpected::Unsigned(count), &self)),
        }
    }
}

macro_rules! text_form {
    ($type:ty, $expecting:literal, $number:expr, $schema:tt) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_any(FromText {
                    expecting: $expecting,
                    number: $number,
                    kind: std::marker::PhantomData,
                })
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

text_form!(Size, "a size such as `64KiB`, `1 page`, `2 blocks` or a number of bytes", Some(|n| n.to_string()), {
    "description": "A size: bytes, or a number with B, KiB, MiB, GiB, page(s) or block(s).",
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": "^ *[0-9]+ *(B|KiB|MiB|GiB|pages?|blocks?)? *$"}
    ]
});

text_form!(RangeExpr, "a range such as `chunk` or `chunk + 100B .. chunk.end - 100B`", None, {
    "description": "A range: `chunk`, `file`, either moved by sizes, or `START .. END`.",
    "type": "string",
    "examples": ["chunk", "chunk + 100B .. chunk.end - 100B", "0 .. 64KiB", "file"]
});

text_form!(Repeat, "`once` or `while NAME`", None, {
    "description": "How often within a round: `once`, or `while NAME` of the invalidator.",
    "type": "string",
    "pattern": "^(once|while .+)$"
});

text_form!(KernelVersion, "a kernel version in quotes, such as \"5.10\"", None, {
    "description": "A kernel version in quotes: MAJOR.MINOR or MAJOR.MINOR.PATCH.",
    "type": "string",
    "pattern": "^[0-9]+\\.[0-9]+(\\.[0-9]+)?$"
});
