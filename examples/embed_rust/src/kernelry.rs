//! A safe Kernelry for this example: handles that end themselves, statuses as errors.

use crate::ffi::*;
use std::alloc::{alloc_zeroed, dealloc, Layout};
use std::ffi::{c_void, CStr, CString};
use std::os::raw::c_char;
use std::ptr;

/// A call that failed, and the library's sentence about it.
#[derive(Debug)]
pub struct Error {
    pub status: i32,
    pub message: String,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}
impl std::error::Error for Error {}

pub type Result<T> = std::result::Result<T, Error>;

/// Copies a string of the library's.
fn text(string: *const c_char) -> String {
    // SAFETY: the library's strings end with a zero; none that is asked for here is NULL.
    unsafe { CStr::from_ptr(string) }
        .to_string_lossy()
        .into_owned()
}

fn last_message() -> String {
    // SAFETY: always a string of this thread.
    text(unsafe { kry_error_message() })
}

fn check(status: kry_status) -> Result<()> {
    match status {
        KRY_OK => Ok(()),
        _ => Err(Error {
            status,
            message: last_message(),
        }),
    }
}

fn c_string(string: &str) -> Result<CString> {
    CString::new(string).map_err(|_| Error {
        status: KRY_E_NOT_FOUND,
        message: format!("{string:?}: a zero byte names nothing"),
    })
}

/// The registry of kernels.
pub struct Registry(*mut kry_registry);

impl Registry {
    pub fn open() -> Result<Self> {
        let mut out = ptr::null_mut();
        // SAFETY: NULL options are the defaults; out is written on success only.
        check(unsafe { kry_registry_open(ptr::null(), &mut out) })?;
        Ok(Self(out))
    }

    pub fn find_device(&self, name: &str) -> Result<kry_device> {
        let name = c_string(name)?;
        let mut device = kry_device::new();
        // SAFETY: all three are alive for the call.
        check(unsafe { kry_registry_find_device(self.0, name.as_ptr(), &mut device) })?;
        Ok(device)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // SAFETY: opened by open() and ended here alone.
        unsafe { kry_registry_close(&mut self.0) }
    }
}

/// An open checkpoint.
pub struct Checkpoint(*mut kry_checkpoint);

impl Checkpoint {
    pub fn open(path: &str) -> Result<Self> {
        let path = c_string(path)?;
        let mut out = ptr::null_mut();
        // SAFETY: as Registry::open.
        check(unsafe { kry_checkpoint_open(path.as_ptr(), ptr::null(), &mut out) })?;
        Ok(Self(out))
    }

    pub fn find_layer(&self, name: &str) -> Result<usize> {
        let name = c_string(name)?;
        let mut index = 0;
        // SAFETY: all three are alive for the call.
        check(unsafe { kry_checkpoint_find_layer(self.0, name.as_ptr(), &mut index) })?;
        Ok(index)
    }

    /// A layer's description and the content key of its weights.
    pub fn content(&self, index: usize) -> Result<(kry_linear, String)> {
        let mut linear = kry_linear::new();
        let mut key = [0; KRY_CONTENT_MAX + 1];
        // SAFETY: the key has the room that is said, and ends with a zero on success.
        check(unsafe {
            kry_checkpoint_content(
                self.0,
                index,
                ptr::null(),
                KRY_CONTENT_FILES,
                &mut linear,
                key.as_mut_ptr(),
                key.len(),
            )
        })?;
        Ok((linear, text(key.as_ptr())))
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        // SAFETY: as of Registry.
        unsafe { kry_checkpoint_close(&mut self.0) }
    }
}

/// A kernel bound to prepared weights. It keeps what it needs of the registry.
pub struct Layer(*mut kry_layer);

impl Layer {
    pub fn create(registry: &Registry, device: &kry_device, linear: &kry_linear) -> Result<Self> {
        let mut args = kry_layer_args::new();
        args.device = device;
        args.linear = linear;
        let mut out = ptr::null_mut();
        // SAFETY: what args points to is copied by the call.
        check(unsafe { kry_layer_create(registry.0, &args, &mut out) })?;
        Ok(Self(out))
    }

    pub fn prepare(&mut self, checkpoint: &Checkpoint, index: usize) -> Result<()> {
        let mut weights = ptr::null_mut();
        // SAFETY: the views live until they are destroyed, which is after the call that reads them.
        unsafe {
            check(kry_checkpoint_weights_create(
                checkpoint.0,
                index,
                ptr::null(),
                &mut weights,
            ))?;
            let mut args = kry_prepare_args::new();
            args.weights = (*weights).weights;
            let prepared = check(kry_layer_prepare(self.0, &args));
            kry_checkpoint_weights_destroy(&mut weights);
            prepared
        }
    }

    pub fn save(&self, path: &str, content: &str) -> Result<()> {
        let (path, content) = (c_string(path)?, c_string(content)?);
        let mut args = kry_save_args::new();
        args.path = path.as_ptr();
        args.content = content.as_ptr();
        // SAFETY: both strings are alive for the call.
        check(unsafe { kry_layer_save(self.0, &args) })
    }

    /// Maps prepared weights. Ok(Err(why)): there are none that fit, so prepare and save them.
    pub fn map(&mut self, path: &str, content: &str) -> Result<std::result::Result<(), String>> {
        let (path, content) = (c_string(path)?, c_string(content)?);
        let mut args = kry_map_args::new();
        args.path = path.as_ptr();
        args.content = content.as_ptr();
        // SAFETY: both strings are alive for the call.
        match unsafe { kry_layer_map(self.0, &args) } {
            KRY_E_NOT_FOUND | KRY_E_FORMAT | KRY_E_FOREIGN | KRY_E_STALE => Ok(Err(last_message())),
            status => check(status).map(Ok),
        }
    }

    /// y = x · dequant(W)ᵀ for the rows of x, both f32.
    pub fn apply(&self, x: &[f32]) -> Result<Vec<f32>> {
        // SAFETY: the description lives as long as the layer.
        let linear = unsafe { &*kry_layer_linear(self.0, 0) };
        assert!(linear.x_type == KRY_TYPE_F32 && linear.y_type == KRY_TYPE_F32);
        assert_eq!(x.len() % linear.in_features as usize, 0, "x has whole rows");
        let m = x.len() / linear.in_features as usize;
        let mut workspace = kry_workspace::new();
        // SAFETY: both are alive for the call.
        check(unsafe { kry_layer_workspace(self.0, m as i64, &mut workspace) })?;
        let scratch = Memory::zeroed(workspace.scratch_bytes as usize)?;
        let zeroed = Memory::zeroed(workspace.zeroed_bytes as usize)?;
        let mut y = vec![0.0; m * linear.out_features as usize];
        let mut args = kry_apply_args::new();
        args.m = m as i64;
        args.x = x.as_ptr().cast();
        args.y = y.as_mut_ptr().cast();
        args.scratch = scratch.pointer.cast();
        args.scratch_bytes = workspace.scratch_bytes;
        args.zeroed = zeroed.pointer.cast();
        args.zeroed_bytes = workspace.zeroed_bytes;
        // SAFETY: x and y have m rows of the layer's features; the workspace is as large as asked.
        check(unsafe { kry_layer_apply(self.0, &args) })?;
        Ok(y)
    }

    /// The names of the kernel and of its plugin.
    pub fn kernel(&self) -> Result<(String, String)> {
        let mut info = kry_kernel_info::new();
        // SAFETY: info is alive for the call; its strings live as long as the process.
        check(unsafe { kry_layer_kernel(self.0, &mut info) })?;
        Ok((text(info.kernel), text(info.plugin)))
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        // SAFETY: as of Registry; no apply is running, since that borrows the layer.
        unsafe { kry_layer_destroy(&mut self.0) }
    }
}

/// Zeroed memory, aligned as the library wants it.
struct Memory {
    pointer: *mut c_void,
    layout: Layout,
}

impl Memory {
    fn zeroed(bytes: usize) -> Result<Self> {
        let out_of_memory = || Error {
            status: KRY_E_MEMORY,
            message: format!("no memory for {bytes} bytes"),
        };
        let layout =
            Layout::from_size_align(bytes.max(1), KRY_ALIGNMENT).map_err(|_| out_of_memory())?;
        // SAFETY: the size is not 0.
        let pointer = unsafe { alloc_zeroed(layout) };
        if pointer.is_null() {
            return Err(out_of_memory());
        }
        Ok(Self {
            pointer: pointer.cast(),
            layout,
        })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.pointer.cast(), self.layout) }
    }
}
