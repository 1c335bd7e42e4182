//! The tables of an ELF file about its code: unwinding, and the names of functions.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fs::{self, File};
use std::io;
use std::ops::{Deref, Range};
use std::os::unix::fs::FileExt;

use addr2line::gimli::{Dwarf, EndianSlice, Error, LittleEndian};
use addr2line::{Context, Location, demangle_auto};
use framehop::ExplicitModuleSectionInfo;
use object::read::elf::{ElfFile64, ProgramHeader};
use object::{LittleEndian as LE, Object, ObjectSection, SymbolMap, SymbolMapName, elf};

use super::maps::{VDSO, with_code};
use crate::sys::file::FileBytes;
use crate::sys::memory::page;

/// The bytes of a file that is mapped in a process.
pub(super) enum Bytes {
    Mapped(FileBytes),
    Copied(Vec<u8>),
}

impl Bytes {
    /// # Errors
    /// If it can't be opened.
    pub(super) fn of(path: &str) -> io::Result<Bytes> {
        if path == VDSO {
            return copy_vdso();
        }
        // The program file may have been replaced by a newer one; this process is a fork of the same
        // server, and runs the old one.
        let own = fs::read_link("/proc/self/exe").is_ok_and(|own| own.as_os_str() == path);
        let path = if own { "/proc/self/exe" } else { path };
        // Opening a device or a pipe may have side effects.
        if !fs::metadata(path)?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Bytes::Mapped(FileBytes::map(&File::open(path)?)?))
    }
}

/// The kernel maps the same one into this process, at another address perhaps.
fn copy_vdso() -> io::Result<Bytes> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let own = with_code(&maps).find(|mapping| mapping.path == VDSO);
    let Range { start, end } = own.ok_or(io::ErrorKind::NotFound)?.range;
    let mut bytes = vec![0; (end - start) as usize];
    File::open("/proc/self/mem")?.read_exact_at(&mut bytes, start)?;
    Ok(Bytes::Copied(bytes))
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(bytes) => bytes,
            Bytes::Copied(bytes) => bytes,
        }
    }
}

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// An ELF file. Addresses are those of the file.
pub(super) struct Elf<'a> {
    file: ElfFile64<'a, LE>,
    /// Both are read when the first name is looked up.
    debug: OnceCell<Option<Context<Slice<'a>>>>,
    symbols: OnceCell<SymbolMap<SymbolMapName<'a>>>,
}

impl<'a> Elf<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Elf<'a>> {
        Some(Elf {
            file: ElfFile64::parse(bytes).ok()?,
            debug: OnceCell::new(),
            symbols: OnceCell::new(),
        })
    }

    /// Returns the address of code that is mapped from `offset` on. A page with the boundary of two
    /// segments is mapped with each of them.
    pub(super) fn address_of_code(&self, offset: u64) -> Option<u64> {
        let page = page() as u64;
        self.file.elf_program_headers().iter().find_map(|header| {
            let (start, len) = header.file_range(LE);
            let has_code =
                header.p_type(LE) == elf::PT_LOAD && header.p_flags(LE).contains(elf::PF_X);
            let mapped = start - start % page..start.saturating_add(len);
            let address = header.p_vaddr(LE).wrapping_add(offset.wrapping_sub(start));
            (has_code && mapped.contains(&offset)).then_some(address)
        })
    }

    /// Returns the sections that the unwinder needs.
    pub(super) fn unwind_info(&self) -> ExplicitModuleSectionInfo<&'a [u8]> {
        let range = |name| {
            let section = self.file.section_by_name(name)?;
            let start = section.address();
            Some(start..start.checked_add(section.size())?)
        };
        ExplicitModuleSectionInfo {
            text_svma: range(".text"),
            got_svma: range(".got"),
            eh_frame_svma: range(".eh_frame"),
            eh_frame: self.section(".eh_frame"),
            eh_frame_hdr_svma: range(".eh_frame_hdr"),
            eh_frame_hdr: self.section(".eh_frame_hdr"),
            ..Default::default()
        }
    }

    /// Returns the functions at an address, with their places in the source. Of inlined functions, the
    /// innermost comes first.
    pub(super) fn names(&self, address: u64) -> Vec<(Option<String>, Option<String>)> {
        let mut names = self.debug_names(address).unwrap_or_default();
        if names.is_empty() {
            names.push((None, None));
        }
        // The outermost one is named by the symbol, with its whole path. Debug information with lines
        // only has just the last part of it.
        if let Some(((function, _), symbol)) = names.last_mut().zip(self.symbol(address)) {
            *function = Some(symbol);
        }
        names
    }

    fn debug_names(&self, address: u64) -> Option<Vec<(Option<String>, Option<String>)>> {
        let debug = self.debug.get_or_init(|| {
            let load = |id: addr2line::gimli::SectionId| -> Result<_, Error> {
                Ok(Slice::new(
                    self.section(id.name()).unwrap_or_default(),
                    LittleEndian,
                ))
            };
            Context::from_dwarf(Dwarf::load(load).ok()?).ok()
        });
        let mut frames = debug.as_ref()?.find_frames(address).skip_all_loads().ok()?;
        let mut names = Vec::new();
        while let Ok(Some(frame)) = frames.next() {
            let function = frame
                .function
                .as_ref()
                .and_then(|name| name.demangle().ok());
            names.push((
                function.map(Cow::into_owned),
                frame.location.as_ref().and_then(place),
            ));
        }
        Some(names)
    }

    fn symbol(&self, address: u64) -> Option<String> {
        let symbols = self.symbols.get_or_init(|| self.file.symbol_map());
        let name = symbols.containing(address)?.name();
        Some(demangle_auto(name.into(), None).into_owned())
    }

    /// Returns the bytes of a section, unless it is missing or compressed.
    fn section(&self, name: &str) -> Option<&'a [u8]> {
        match self.file.section_by_name(name)?.uncompressed_data() {
            Ok(Cow::Borrowed(bytes)) => Some(bytes),
            Ok(Cow::Owned(_)) | Err(_) => None,
        }
    }
}

fn place(location: &Location<'_>) -> Option<String> {
    let file = shorten(location.file?);
    match location.line {
        Some(line) => Some(format!("{file}:{line}")),
        None => Some(file.to_owned()),
    }
}

/// Returns the path of a source file without its folder on the machine that compiled it.
fn shorten(path: &str) -> &str {
    // The standard library: /rustc/HASH/library/...
    if let Some(rest) = path.strip_prefix("/rustc/") {
        return rest.split_once('/').map_or(rest, |(_, rest)| rest);
    }
    // A dependency: .../registry/src/INDEX/NAME-VERSION/src/...
    if let Some((_, rest)) = path.split_once("/registry/src/") {
        return rest.split_once('/').map_or(rest, |(_, rest)| rest);
    }
    // The program itself: the folders above it may be called src, too.
    match path.rfind("/src/") {
        Some(at) => &path[at + 1..],
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shortened_to_its_package() {
        for (path, short) in [
            ("/home/somebody/server/src/cli/echo.rs", "src/cli/echo.rs"),
            ("/usr/src/app/src/main.rs", "src/main.rs"),
            (
                "/rustc/59807616e1/library/std/src/thread/mod.rs",
                "library/std/src/thread/mod.rs",
            ),
            (
                "/home/somebody/.cargo/registry/src/index-0123456789abcdef/nix-0.31.3/src/poll.rs",
                "nix-0.31.3/src/poll.rs",
            ),
            ("./misc/../sysdeps/x.c", "./misc/../sysdeps/x.c"),
        ] {
            assert_eq!(shorten(path), short);
        }
    }

    #[test]
    fn what_is_no_elf_file_is_none() {
        assert!(Elf::parse(b"#!/bin/sh\n").is_none());
        assert!(Bytes::of("/dev/zero").is_err());
        assert!(Bytes::of("/nowhere/at/all").is_err());
    }

    #[test]
    fn the_vdso_has_names() {
        let Ok(vdso) = Bytes::of(VDSO) else {
            // Some kernels have none.
            return;
        };
        let elf = Elf::parse(&vdso).unwrap();
        assert_eq!(elf.address_of_code(0), Some(0));
        assert!(elf.unwind_info().eh_frame.is_some());
    }
}
