//! What the fleet does with a pool, as fields of a line. Each may be missing: then it is as in
//! [`FleetRules::NONE`].

use tlb_engine::api::TellHow;

use super::{Fields, TextError, optional};
use crate::swarm::scenario::{FleetRules, Probing};

/// The fields, each with a blank before it.
pub(super) fn print(rules: &FleetRules) -> String {
    let health = rules.health.map_or("off".into(), |it| {
        let kind = if it.exchange { "exchange" } else { "tcp" };
        let (interval, timeout) = (it.interval_ms, it.timeout_ms);
        format!("{kind}/{interval}/{timeout}/{}/{}", it.rise, it.fall)
    });
    let on_down = match rules.on_down {
        None => "keep",
        Some(TellHow::Close) => "close",
        Some(TellHow::Reset) => "reset",
    };
    format!(
        " health={health} panic={} max-ejected={} on-down={on_down} tell-rate={} ramp={} admission={}",
        rules.panic,
        rules.max_ejected,
        rules.tell_rate,
        optional(rules.ramp_ms),
        pair(rules.admission)
    )
}

/// Two numbers, or none.
pub(super) fn pair(of: Option<(u32, u32)>) -> String {
    of.map_or("off".into(), |(one, other)| format!("{one}/{other}"))
}

/// Reads them.
///
/// # Errors
/// A field that is not what it should be.
pub(super) fn parse(fields: &Fields<'_>) -> Result<FleetRules, TextError> {
    let hows = [
        ("keep", None),
        ("close", Some(TellHow::Close)),
        ("reset", Some(TellHow::Reset)),
    ];
    let tell_rate = fields.or("tell-rate", "1000").number("tell-rate")?;
    if tell_rate == 0 {
        return Err(fields.error("tell-rate is zero"));
    }
    Ok(FleetRules {
        health: health(&fields.or("health", "off"))?,
        panic: fields.or("panic", "0").number("panic")?,
        max_ejected: fields.or("max-ejected", "100").number("max-ejected")?,
        on_down: fields.or("on-down", "keep").one_of("on-down", &hows)?,
        tell_rate,
        ramp_ms: fields.or("ramp", "off").optional("ramp")?,
        admission: fields.or("admission", "off").pair("admission")?,
    })
}

fn health(fields: &Fields<'_>) -> Result<Option<Probing>, TextError> {
    let word = fields.word("health")?;
    if word == "off" {
        return Ok(None);
    }
    let probing = || {
        let mut parts = word.split('/');
        let exchange = match parts.next()? {
            "tcp" => false,
            "exchange" => true,
            _ => return None,
        };
        let mut number = || parts.next()?.parse::<u32>().ok().filter(|&it| it > 0);
        Some(Probing {
            interval_ms: number()?.into(),
            timeout_ms: number()?.into(),
            rise: number()?,
            fall: number()?,
            exchange,
        })
    };
    let unknown = || fields.error(format!("health={word} is unknown"));
    probing().ok_or_else(unknown).map(Some)
}
