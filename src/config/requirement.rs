//! Requirements that settings have to meet.

/// The key of an invalid setting, and the reason.
pub(super) type Invalid = (&'static str, &'static str);

/// Refuses the first of `requirements` that is not met. Each is given as whether it is met, the key, and the reason.
pub(super) fn check_all(
    requirements: &[(bool, &'static str, &'static str)],
) -> Result<(), Invalid> {
    let unmet = requirements.iter().find(|(is_met, ..)| !is_met);
    unmet.map_or(Ok(()), |(_, key, reason)| Err((*key, *reason)))
}
