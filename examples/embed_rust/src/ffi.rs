//! The part of kernelry.h and checkpoint.h that this example calls, as Rust sees it. Structs begin
//! with their size and grow at their end, so these stay right for later libraries of the same major.

#![allow(non_camel_case_types)]

use std::os::raw::{c_char, c_int, c_void};

pub type kry_status = i32;
pub const KRY_OK: kry_status = 0;
pub const KRY_E_MEMORY: kry_status = 2;
pub const KRY_E_FORMAT: kry_status = 4;
pub const KRY_E_NOT_FOUND: kry_status = 13;
pub const KRY_E_FOREIGN: kry_status = 15;
pub const KRY_E_STALE: kry_status = 16;

pub const KRY_TYPE_F32: u32 = 3;
pub const KRY_CONTENT_FILES: u32 = 0;
pub const KRY_CONTENT_MAX: usize = 255;
pub const KRY_ALIGNMENT: usize = 256;

/// Declares opaque handles.
macro_rules! handles {
    ($($name:ident),*) => {$(
        #[repr(C)]
        pub struct $name {
            _opaque: [u8; 0],
        }
    )*};
}
handles!(
    kry_registry,
    kry_layer,
    kry_checkpoint,
    kry_registry_options,
    kry_checkpoint_options
);
handles!(kry_weights, kry_slice, kry_host);

/// Declares structs whose first field is their size, with `new()`: all zero but for that.
macro_rules! structs {
    ($($name:ident { $($field:ident: $type:ty,)* })*) => {
        $(
            #[repr(C)]
            #[derive(Clone, Copy)]
            pub struct $name {
                pub struct_size: usize,
                $(pub $field: $type,)*
            }
            impl $name {
                #[allow(dead_code)] // some are made by the library alone
                pub fn new() -> Self {
                    // SAFETY: integers, arrays of them and raw pointers are all well when zero.
                    let mut value: Self = unsafe { std::mem::zeroed() };
                    value.struct_size = std::mem::size_of::<Self>();
                    value
                }
            }
        )*
        /// Names and sizes, to be compared with those that a C compiler tells.
        pub fn sizes() -> Vec<(&'static str, usize)> {
            vec![$((stringify!($name), std::mem::size_of::<$name>()),)*]
        }
    };
}
structs! {
    kry_linear {
        in_features: i64,
        out_features: i64,
        full_in_features: i64,
        full_out_features: i64,
        k_offset: i64,
        group_size: i64,
        weight_type: u32,
        scale_type: u32,
        x_type: u32,
        y_type: u32,
        activation_quantization: u32,
        allowed: u32,
        act_order: u32,
        reserved: u32,
        required_features: u64,
    }
    kry_device {
        platform: [c_char; 32],
        arch: [c_char; 32],
        name: [c_char; 64],
        ordinal: i32,
        flags: u32,
        arch_number: u32,
        multiprocessors: u32,
        warp_size: u32,
        shared_memory_bytes: u32,
        l2_bytes: u64,
        memory_bytes: u64,
        cpu_features: u64,
    }
    kry_kernel_info {
        kernel: *const c_char,
        plugin: *const c_char,
        platform: *const c_char,
        summary: *const c_char,
        layout_name: *const c_char,
        layout_version: u32,
        flags: u32,
        priority: i32,
        fallback: u32,
    }
    kry_layer_args {
        device: *const kry_device,
        linear: *const kry_linear,
        kernel: *const c_char,
    }
    kry_workspace {
        scratch_bytes: u64,
        zeroed_bytes: u64,
    }
    kry_prepare_args {
        weights: *const kry_weights,
        prepared: *mut c_void,
        prepared_bytes: u64,
        prepared_memory: u32,
        reserved: u32,
        scratch: *mut c_void,
        scratch_bytes: u64,
        stream: *mut c_void,
        host: *const kry_host,
    }
    kry_apply_args {
        m: i64,
        x: *const c_void,
        y: *mut c_void,
        bias: *const c_void,
        x_stride: i64,
        y_stride: i64,
        stream: *mut c_void,
        scratch: *mut c_void,
        zeroed: *mut c_void,
        scratch_bytes: u64,
        zeroed_bytes: u64,
        host: *const kry_host,
    }
    kry_save_args {
        path: *const c_char,
        content: *const c_char,
        stream: *mut c_void,
        host: *const kry_host,
        offset: u64,
        flags: u32,
        reserved: u32,
    }
    kry_map_args {
        path: *const c_char,
        content: *const c_char,
        prepared: *mut c_void,
        prepared_bytes: u64,
        prepared_memory: u32,
        flags: u32,
        stream: *mut c_void,
        host: *const kry_host,
        offset: u64,
        bytes: u64,
    }
    kry_checkpoint_weights {
        linear: *const kry_linear,
        weights: *const kry_weights,
        bias: *const c_void,
        bias_dtype: u32,
        reserved: u32,
    }
}

extern "C" {
    pub fn kry_error_message() -> *const c_char;
    pub fn kry_registry_open(
        options: *const kry_registry_options,
        out: *mut *mut kry_registry,
    ) -> kry_status;
    pub fn kry_registry_close(registry: *mut *mut kry_registry);
    pub fn kry_registry_find_device(
        registry: *const kry_registry,
        name: *const c_char,
        out: *mut kry_device,
    ) -> kry_status;

    pub fn kry_layer_create(
        registry: *mut kry_registry,
        args: *const kry_layer_args,
        out: *mut *mut kry_layer,
    ) -> kry_status;
    pub fn kry_layer_destroy(layer: *mut *mut kry_layer);
    pub fn kry_layer_kernel(layer: *const kry_layer, out: *mut kry_kernel_info) -> kry_status;
    pub fn kry_layer_linear(layer: *const kry_layer, as_decided: c_int) -> *const kry_linear;
    pub fn kry_layer_workspace(
        layer: *const kry_layer,
        m: i64,
        out: *mut kry_workspace,
    ) -> kry_status;
    pub fn kry_layer_prepare(layer: *mut kry_layer, args: *const kry_prepare_args) -> kry_status;
    pub fn kry_layer_apply(layer: *const kry_layer, args: *const kry_apply_args) -> kry_status;
    pub fn kry_layer_save(layer: *const kry_layer, args: *const kry_save_args) -> kry_status;
    pub fn kry_layer_map(layer: *mut kry_layer, args: *const kry_map_args) -> kry_status;

    pub fn kry_checkpoint_open(
        path: *const c_char,
        options: *const kry_checkpoint_options,
        out: *mut *mut kry_checkpoint,
    ) -> kry_status;
    pub fn kry_checkpoint_close(checkpoint: *mut *mut kry_checkpoint);
    pub fn kry_checkpoint_find_layer(
        checkpoint: *const kry_checkpoint,
        name: *const c_char,
        index: *mut usize,
    ) -> kry_status;
    pub fn kry_checkpoint_weights_create(
        checkpoint: *const kry_checkpoint,
        index: usize,
        slice: *const kry_slice,
        out: *mut *mut kry_checkpoint_weights,
    ) -> kry_status;
    pub fn kry_checkpoint_weights_destroy(weights: *mut *mut kry_checkpoint_weights);
    pub fn kry_checkpoint_content(
        checkpoint: *const kry_checkpoint,
        index: usize,
        slice: *const kry_slice,
        how: u32,
        linear: *mut kry_linear,
        content: *mut c_char,
        size: usize,
    ) -> kry_status;
}
