//! SHA-256 over several fields, the same in the code and in SQL; and whether a caller has a content already, by its digest.

/// SHA-256 over `prefix` and every field, each preceded by its length, so that different fields never give the same
/// input.
pub fn of_fields(prefix: &[u8], fields: &[&[u8]]) -> [u8; 32] {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(prefix);
    for field in fields {
        context.update(&(field.len() as u64).to_be_bytes());
        context.update(field);
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    bytes
}

/// The first 16 bytes of [`of_fields`] without a prefix, where many digests are kept in memory.
pub fn short_of_fields(fields: &[&[u8]]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(of_fields(&[], fields).split_at(16).0);
    short
}

/// Whether the value of an `If-None-Match` header names the entity tag `tag`, which includes its quotes. The comparison is
/// weak (RFC 9110, 13.1.2).
pub fn is_tag_named(tag: &str, if_none_match: &str) -> bool {
    let mut named = if_none_match.split(',').map(str::trim);
    named.any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}
