//! Users and groups, by name or by number: passwd(5) and group(5), or where else the system has them.

use nix::unistd::{Group, User};

/// Returns the number of a user.
///
/// # Errors
/// Why there is none, in words.
pub(crate) fn user(text: &str) -> Result<u32, String> {
    number(text, "user", |name| {
        Ok(User::from_name(name)?.map(|user| user.uid.as_raw()))
    })
}

/// Returns the number of a group.
///
/// # Errors
/// As above.
pub(crate) fn group(text: &str) -> Result<u32, String> {
    number(text, "group", |name| {
        Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()))
    })
}

fn number(
    text: &str,
    kind: &str,
    look_up: impl FnOnce(&str) -> nix::Result<Option<u32>>,
) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return match number {
            // chown(2) takes it for "no change".
            u32::MAX => Err(format!("{number} is no number of a {kind}")),
            _ => Ok(number),
        };
    }
    match look_up(text) {
        Ok(Some(number)) => Ok(number),
        Ok(None) => Err(format!("there is no {kind} {text:?}")),
        Err(error) => Err(format!("cannot look up the {kind} {text:?}: {error}")),
    }
}

#[cfg(all(test, not(miri)))] // Miri has no users.
mod tests {
    use super::*;

    #[test]
    fn accounts_have_names_and_numbers() {
        assert_eq!((user("root"), group("root")), (Ok(0), Ok(0)));
        assert_eq!(user("4711"), Ok(4711));
        assert!(user("4294967295").unwrap_err().contains("no number"));
        let none = group("no-such-group").unwrap_err();
        assert_eq!(none, r#"there is no group "no-such-group""#);
    }
}
