//! What a connection's origin says, as a line of text.

use tine::Origin;

/// Returns a line about how a connection has come, or about the part of that which is asked for.
pub(crate) fn line(origin: &Origin<'_>, part: &str) -> Vec<u8> {
    if part == "id" {
        let id = origin.unique_id().unwrap_or_default();
        return [id, b"\n"].concat();
    }
    let none = || "none".to_owned();
    let protocol = origin.application_protocol();
    let protocol = protocol.map_or_else(none, |it| String::from_utf8_lossy(it).into_owned());
    let certificate = origin.client_certificate();
    format!(
        "tls={} name={} protocol={protocol} certificate={} proxy={}\n",
        origin.tls_version().unwrap_or("none"),
        origin.server_name().unwrap_or("none"),
        certificate.map_or_else(none, |it| format!("{}", it.len())),
        origin.proxy().map_or_else(none, |it| it.to_string()),
    )
    .into_bytes()
}
