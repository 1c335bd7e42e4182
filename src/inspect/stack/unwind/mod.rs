//! The unwinding of a copied stack: from registers to the names of functions.

mod elf;
mod maps;

use framehop::{
    CacheNative, MayAllocateDuringUnwind, Module, UnwindRegsNative, Unwinder, UnwinderNative,
};

use self::elf::{Bytes, Elf};
use self::maps::{Mapping, with_code};
use super::{Capture, FRAMES, Frame};

type Native<'a> = UnwinderNative<&'a [u8], MayAllocateDuringUnwind>;

/// A mapping with a readable file.
struct Code<'a> {
    mapping: &'a Mapping<'a>,
    elf: &'a Elf<'a>,
    /// The difference between addresses in the process and in the file.
    bias: u64,
}

/// Returns the frames of a capture, the innermost first.
pub(super) fn frames(capture: &Capture) -> Vec<Frame> {
    let maps = String::from_utf8_lossy(&capture.maps);
    let mappings: Vec<Mapping<'_>> = with_code(&maps).collect();
    let files: Vec<Option<Bytes>> = mappings
        .iter()
        .map(|mapping| Bytes::of(mapping.path).ok())
        .collect();
    let elves: Vec<Option<Elf<'_>>> = files
        .iter()
        .map(|bytes| Elf::parse(bytes.as_deref()?))
        .collect();
    let codes: Vec<Code<'_>> = mappings
        .iter()
        .zip(&elves)
        .filter_map(|(mapping, elf)| {
            let elf = elf.as_ref()?;
            let bias = mapping
                .range
                .start
                .checked_sub(elf.address_of_code(mapping.offset)?)?;
            Some(Code { mapping, elf, bias })
        })
        .collect();
    let mut frames = Vec::new();
    for address in addresses(capture, &codes) {
        describe(address, &codes, &mut frames);
    }
    frames.truncate(FRAMES);
    frames
}

/// Returns an address in each function, the innermost first.
fn addresses(capture: &Capture, codes: &[Code<'_>]) -> Vec<u64> {
    let mut unwinder = Native::new();
    for Code { mapping, elf, bias } in codes {
        let (name, range) = (mapping.path.to_owned(), mapping.range.clone());
        unwinder.add_module(Module::new(name, range, *bias, elf.unwind_info()));
    }
    let mut cache = CacheNative::new();
    let mut read = |address: u64| capture.word(address).ok_or(());
    let registers = native(capture, &unwinder);
    let mut calls = unwinder.iter_frames(capture.registers.pc, registers, &mut cache, &mut read);
    let mut found = Vec::new();
    // An error ends the walk; the frames found so far are right.
    while found.len() < FRAMES
        && let Ok(Some(address)) = calls.next()
    {
        // A return address may belong to the next function: the call is before it.
        found.push(address.address_for_lookup());
    }
    found
}

#[cfg(target_arch = "x86_64")]
fn native(capture: &Capture, _: &Native<'_>) -> UnwindRegsNative {
    let registers = &capture.registers;
    UnwindRegsNative::new(registers.pc, registers.sp, registers.fp)
}

#[cfg(target_arch = "aarch64")]
fn native(capture: &Capture, unwinder: &Native<'_>) -> UnwindRegsNative {
    let registers = &capture.registers;
    // Some return addresses are signed, in bits that no address of user space has.
    let mask =
        framehop::aarch64::PtrAuthMask::from_max_known_address(unwinder.max_known_code_address());
    let (lr, sp, fp) = (registers.lr, registers.sp, registers.fp);
    UnwindRegsNative::new_with_ptr_auth_mask(mask, lr, sp, fp)
}

impl Capture {
    /// Returns eight bytes of the stack, if they were copied.
    fn word(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.registers.sp)?).ok()?;
        let bytes = self.stack.get(at..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    }
}

/// Adds the functions at an address.
fn describe(address: u64, codes: &[Code<'_>], frames: &mut Vec<Frame>) {
    let code = codes
        .iter()
        .find(|code| code.mapping.range.contains(&address));
    let (module, offset, names) = match code {
        Some(Code { mapping, elf, bias }) => {
            let path = mapping.path.trim_end_matches(" (deleted)");
            let file = path.rsplit('/').next().unwrap_or(path);
            let offset = address.wrapping_sub(*bias);
            (Some(file.to_owned()), offset, elf.names(offset))
        }
        None => (None, address, vec![(None, None)]),
    };
    for (function, location) in names {
        frames.push(Frame {
            number: frames.len(),
            function,
            module: module.clone(),
            offset,
            location,
        });
    }
}
