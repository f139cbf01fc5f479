//! The page on which a user signs in for a device: one form, no script, nothing from elsewhere.

use actix_web::http::StatusCode;
use actix_web::HttpResponse;

const STYLE: &str = "body{font:16px sans-serif;max-width:24em;margin:4em auto;padding:0 1em}\
                     label{display:block;margin:1em 0}input{display:block;width:100%;font:inherit;padding:.3em}\
                     button{font:inherit;padding:.3em 1em}.note{color:#a00}";

/// Text that is safe between tags and in quoted attributes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn page(status: u16, body: &str) -> HttpResponse {
    let text = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Sign in for a device</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>{body}</body></html>\n"
    );
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let policy =
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
    HttpResponse::build(status)
        .content_type("text/html; charset=utf-8")
        .insert_header(("cache-control", "no-store"))
        .insert_header(("content-security-policy", policy))
        .insert_header(("referrer-policy", "no-referrer"))
        .insert_header(("x-content-type-options", "nosniff"))
        .insert_header(("x-frame-options", "DENY"))
        .body(text)
}

/// The form, with the code that is known already and what was wrong with the last attempt.
pub(super) fn form(status: u16, code: &str, note: &str) -> HttpResponse {
    let note = match note {
        "" => String::new(),
        note => format!("<p class=\"note\" role=\"alert\">{}</p>", escaped(note)),
    };
    page(
        status,
        &format!(
            "<h1>Sign in for a device</h1>{note}<form method=\"post\" action=\"/devicelogin\" autocomplete=\"off\">\
             <label>Code that the device shows<input name=\"code\" value=\"{}\" required maxlength=\"20\"></label>\
             <label>User name<input name=\"username\" required autocomplete=\"username\"></label>\
             <label>Password<input name=\"password\" type=\"password\" required \
             autocomplete=\"current-password\"></label>\
             <p>Whoever shows you a code gets to act in your name. Go on only if you started this sign-in yourself.</p>\
             <button>Sign in</button></form>",
            escaped(code)
        ),
    )
}

/// What a user sees at the end.
pub(super) fn done(upn: &str) -> HttpResponse {
    page(200, &format!("<h1>Signed in</h1><p>As {}. You may close this window.</p>", escaped(upn)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_was_sent_becomes_markup() {
        assert_eq!(escaped("<a href=\"x\">'&"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;");
    }
}
