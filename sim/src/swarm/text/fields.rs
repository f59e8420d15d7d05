//! The fields of a line of a scenario's text.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::TextError;

/// One line's fields.
pub(super) struct Fields<'a> {
    pub(super) line: usize,
    pub(super) fields: BTreeMap<&'a str, &'a str>,
}

impl<'a> Fields<'a> {
    pub(super) fn error(&self, what: impl Into<String>) -> TextError {
        TextError {
            line: self.line,
            what: what.into(),
        }
    }

    pub(super) fn word(&self, name: &str) -> Result<&'a str, TextError> {
        let value = self.fields.get(name).copied();
        value.ok_or_else(|| self.error(format!("{name} is missing")))
    }

    pub(super) fn number<T: FromStr>(&self, name: &str) -> Result<T, TextError> {
        let word = self.word(name)?;
        word.parse()
            .map_err(|_| self.error(format!("{name}={word} is not such a number")))
    }

    pub(super) fn optional<T: FromStr>(&self, name: &str) -> Result<Option<T>, TextError> {
        if self.word(name)? == "off" {
            return Ok(None);
        }
        self.number(name).map(Some)
    }

    /// These fields, with one more if it is missing: scenarios that were kept before there was such a thing.
    pub(super) fn or(&self, name: &'a str, value: &'a str) -> Self {
        let mut fields = self.fields.clone();
        fields.entry(name).or_insert(value);
        Self {
            line: self.line,
            fields,
        }
    }

    /// Two numbers with a `/` between them.
    pub(super) fn pair(&self, name: &str) -> Result<Option<(u32, u32)>, TextError> {
        let word = self.word(name)?;
        if word == "off" {
            return Ok(None);
        }
        let both = word.split_once('/');
        let both = both.and_then(|(one, other)| Some((one.parse().ok()?, other.parse().ok()?)));
        let both = both.filter(|&(one, other)| one > 0 && other > 0);
        both.map(Some)
            .ok_or_else(|| self.error(format!("{name}={word} is not two numbers")))
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, TextError> {
        Ok(self.number::<u8>(name)? != 0)
    }

    pub(super) fn one_of<T: Copy>(&self, name: &str, of: &[(&str, T)]) -> Result<T, TextError> {
        let word = self.word(name)?;
        let found = of.iter().find(|(known, _)| *known == word);
        let unknown = || self.error(format!("{name}={word} is unknown"));
        found.map(|&(_, value)| value).ok_or_else(unknown)
    }
}
