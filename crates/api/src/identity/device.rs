//! Signing in for a device that cannot show a page (RFC 8628): the device shows a code, the user signs in elsewhere with it.
//!
//! A request for a code stores nothing: anybody may make one, and the log is not anybody's to fill. What the device keeps is
//! sealed; the code that the user types carries a check of its own, so that every node knows a code of ours from a mistyped
//! one. Only a sign-in is written down, under the code's hash, and it is used up by the first token.

use super::token::{Form, TokenRequest};
use super::{page, user, IdentityError, TenantRef};
use crate::domain::Origin;
use crate::service::Service;
use crate::wire::{b64, decode_b64};
use actix_web::HttpResponse;
use claviger_state_machine::read;
use claviger_types::command::{Actor, ApproveDevice, Command, PrincipalRef, TakeDevice};
use claviger_types::outcome::{Outcome, Refusal};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Seconds for which a code is good: time to find a browser and a password.
const LIFE: u64 = 900;

/// Seconds between two questions of a device.
const INTERVAL: u64 = 5;

/// What a device keeps is sealed as this.
const DEVICE: &str = "device code";

/// Letters of a code (RFC 8628 section 6.1): no vowels, so that no words come out, and nothing that is mistaken for a digit.
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// Letters that are drawn: 2^34 codes, for a quarter of an hour each.
const DRAWN: usize = 8;

/// Letters that check the others and the time: a guess is a code of ours once in 160 000 times.
const CHECK: usize = 4;

/// Wrong codes, names and passwords that a node's page takes in a minute: with [`CHECK`] a guessed code would take a day,
/// and then nobody waits for it.
const FAILURES_MAX: u32 = 60;

/// The minute.
const WINDOW: Duration = Duration::from_secs(60);

/// Counts what went wrong on the page.
pub(crate) struct Failures(Mutex<(Instant, u32)>);

impl Default for Failures {
    fn default() -> Self {
        Self(Mutex::new((Instant::now(), 0)))
    }
}

impl Failures {
    fn too_many(&self) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.0.elapsed() < WINDOW && known.1 >= FAILURES_MAX
    }

    fn one_more(&self) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0.elapsed() >= WINDOW {
            *known = (Instant::now(), 0);
        }
        known.1 += 1;
    }
}

/// What a device keeps.
#[derive(Serialize, Deserialize)]
struct Device {
    code: String,
    app: String,
    scopes: String,
    expires: u64,
}

fn letters(bytes: &[u8], count: usize) -> String {
    let letter = |byte: &u8| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]);
    bytes.iter().take(count).map(letter).collect()
}

/// The letters that belong to drawn ones, in one window of time.
fn check_of(service: &Service, drawn: &str, window: u64) -> Result<String, IdentityError> {
    let context = format!("{window}/{drawn}");
    let mark = service.sealer.mark("user code", context.as_bytes()).map_err(|_| IdentityError::unavailable())?;
    Ok(letters(&mark, CHECK))
}

/// A code as people may write it: with or without dashes, in any case.
fn plain(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphabetic).map(|c| c.to_ascii_uppercase()).collect()
}

fn is_ours(service: &Service, code: &str) -> Result<bool, IdentityError> {
    let Some((drawn, check)) = code.split_at_checked(DRAWN) else { return Ok(false) };
    let window = service.now_ms() / 1000 / LIFE;
    for window in [window, window.saturating_sub(1)] {
        if check_of(service, drawn, window)? == check {
            return Ok(true);
        }
    }
    Ok(false)
}

fn hash(code: &str) -> [u8; 32] {
    Sha256::digest(code).into()
}

/// `POST .../devicecode`: a code for a device to show.
pub(super) fn begin(
    service: &Service,
    origin: &Origin<'_>,
    body: &[u8],
    v1: bool,
) -> Result<HttpResponse, IdentityError> {
    let form = Form(std::str::from_utf8(body).unwrap_or(""));
    let app = form.need("client_id")?;
    let now = service.now_ms() / 1000;
    let random: [u8; DRAWN] = claviger_crypto::random::bytes().map_err(|_| IdentityError::unavailable())?;
    let drawn = letters(&random, DRAWN);
    let code = format!("{drawn}{}", check_of(service, &drawn, now / LIFE)?);
    let device = Device { code: code.clone(), app, scopes: user::scopes(&form, v1)?, expires: now + LIFE };
    let sealed = serde_json::to_vec(&device).map_err(|_| IdentityError::unavailable())?;
    let sealed = service.sealer.seal_own(DEVICE, DEVICE, &sealed).map_err(|_| IdentityError::unavailable())?;
    let shown = [&code[..4], &code[4..8], &code[8..]].join("-");
    let base = service.config.sign_in_base.clone().unwrap_or_else(|| origin.login_base());
    let page = format!("{base}/devicelogin");
    let message =
        format!("To sign in, use a web browser to open the page {page} and enter the code {shown} to authenticate.");
    Ok(HttpResponse::Ok().insert_header(("cache-control", "no-store")).json(json!({
        "user_code": shown,
        "device_code": b64(&sealed),
        "verification_uri": page,
        "verification_url": page,
        "expires_in": LIFE,
        "interval": INTERVAL,
        "message": message,
    })))
}

/// A device's question whether the user has signed in.
pub(super) async fn by_device_code(request: &TokenRequest<'_>) -> Result<HttpResponse, IdentityError> {
    let service = request.service;
    let invalid = || {
        let text = "The provided value for the input parameter 'device_code' is not valid.";
        IdentityError::new(400, "bad_verification_code", 70_000, text)
    };
    let given = match request.form.get("device_code").or_else(|| request.form.get("code")) {
        Some(given) => given,
        None => request.form.need("device_code")?,
    };
    let sealed = decode_b64(&given).ok_or_else(invalid)?;
    let opened = service.sealer.open_own(DEVICE, DEVICE, &sealed).map_err(|_| invalid())?;
    let device: Device = serde_json::from_slice(opened.expose()).map_err(|_| invalid())?;
    if service.now_ms() / 1000 >= device.expires {
        let text =
            "The provided value for the input parameter 'device_code' is not valid. This device code has expired.";
        return Err(IdentityError::new(400, "expired_token", 70_020, text));
    }
    let code = hash(&device.code);
    let approval = service.node.view(|view| read::device(view, &code)).map_err(|_| IdentityError::unavailable())?;
    let Some(approval) = approval else {
        let text = "OAuth 2.0 device flow error. Authorization is pending. Continue polling.";
        return Err(IdentityError::new(400, "authorization_pending", 70_016, text));
    };
    let signed_in = user::vouched_for(request, approval.user.oid)?;
    let client = request.client(&signed_in.tenant).await?;
    if client.app.guid() != device.app.to_ascii_lowercase() {
        return Err(invalid());
    }
    // Before anything is issued: of two devices with the same code one gets a token.
    let take = Command::TakeDevice(TakeDevice { code });
    match service.propose(Actor::System, &take, Vec::new()).await {
        Ok(Outcome::Refused(_)) => {
            let text = "The device code was already redeemed, please retry with a new one.";
            Err(IdentityError::new(400, "invalid_grant", 54_005, text))
        }
        Ok(_) => user::answer(request, &signed_in, &client, &device.scopes),
        Err(_) => Err(IdentityError::unavailable()),
    }
}

/// The page's form: a code, a name and a password.
pub(super) async fn sign_in(service: &Service, body: &[u8]) -> HttpResponse {
    let form = Form(std::str::from_utf8(body).unwrap_or(""));
    let code = plain(&form.get("code").unwrap_or_default());
    if service.device_failures.too_many() {
        return page::form(429, &code, "Too many attempts: wait for a minute, and try again.");
    }
    let wrong = |status, text: &str| {
        service.device_failures.one_more();
        page::form(status, &code, text)
    };
    match is_ours(service, &code) {
        Ok(true) => {}
        Ok(false) => return wrong(400, "That code is wrong or has expired. Look at your device again."),
        Err(_) => return page::form(503, &code, "The service cannot answer at the moment. Try again."),
    }
    let username = form.get("username").unwrap_or_default();
    let password = Zeroizing::new(form.get("password").unwrap_or_default());
    let signed_in = match user::sign_in(service, &TenantRef::Any, &username, &password).await {
        Ok(signed_in) => signed_in,
        Err(error) if error.is_transient() => return page::form(503, &code, "Try again in a moment."),
        Err(error) => return wrong(403, error.text()),
    };
    let approve = Command::ApproveDevice(ApproveDevice {
        code: hash(&code),
        user: PrincipalRef { tenant: signed_in.user.tenant, oid: signed_in.user.oid },
        expires: service.now_ms() / 1000 + LIFE,
    });
    match service.propose(Actor::System, &approve, Vec::new()).await {
        Ok(Outcome::Done) => page::done(&signed_in.user.upn),
        Ok(Outcome::Refused(Refusal::PrincipalExists)) => wrong(409, "That code was used already."),
        _ => page::form(503, &code, "The service cannot answer at the moment. Try again."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_as_people_write_them() {
        assert_eq!(plain(" bcdf-GHJK lmnp\n"), "BCDFGHJKLMNP");
        assert_eq!(letters(&[0, 19, 20, 255], 4), "BZBT");
    }

    #[test]
    fn failures_are_counted_by_the_minute() {
        let failures = Failures::default();
        for _ in 0..FAILURES_MAX {
            assert!(!failures.too_many());
            failures.one_more();
        }
        assert!(failures.too_many());
    }
}
