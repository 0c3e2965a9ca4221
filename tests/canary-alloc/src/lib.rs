//! An allocator that looks into every block that is given back, for octets that should have been overwritten: T34. It is a
//! crate of its own because an allocator cannot be written without `unsafe`, which popgate forbids. Left out: what was
//! never on the heap, and what the kernel holds.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    backtrace::Backtrace,
    cell::{Cell, RefCell},
    pin::Pin,
    ptr,
    task::{Context, Poll},
};

/// The allocator, for `#[global_allocator]`.
#[derive(Clone, Copy, Debug)]
pub struct Canary;

thread_local! {
    /// What is looked for on this thread: nothing but while [`watch`] runs.
    static FORMS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static JUDGING: Cell<bool> = const { Cell::new(false) };
    static FOUND: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Does something on this thread; gives where blocks were given back meanwhile with one of these octet strings in them.
pub fn watch(forms: Vec<Vec<u8>>, act: impl FnOnce()) -> Vec<String> {
    FORMS.set(forms);
    JUDGING.set(true);
    act();
    JUDGING.set(false);
    FORMS.take();
    FOUND.take()
}

/// Does something that is not judged.
pub fn exempt<T>(act: impl FnOnce() -> T) -> T {
    let before = JUDGING.replace(false);
    let done = act();
    JUDGING.set(before);
    done
}

/// A task that is not judged, to its end.
#[derive(Debug)]
pub struct Exempt<T>(Option<Pin<Box<T>>>);

impl<T> Exempt<T> {
    /// Exempts a future.
    pub fn new(future: T) -> Self {
        exempt(|| Self(Some(Box::pin(future))))
    }
}

impl<T: Future> Future for Exempt<T> {
    type Output = T::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T::Output> {
        exempt(|| match &mut self.0 {
            Some(future) => future.as_mut().poll(context),
            None => Poll::Pending,
        })
    }
}

impl<T> Drop for Exempt<T> {
    fn drop(&mut self) {
        exempt(|| drop(self.0.take()));
    }
}

// Moving a block, which `realloc` may do, gives its old place back: the default of the trait does just that.
//
// SAFETY: every block is one of `System`, and is handed on with the layout it came with.
unsafe impl GlobalAlloc for Canary {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A block that nobody has written to must not show what was in that place before.
        // SAFETY: the caller's duties are `System`'s.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is live, as the caller warrants, and all of it was written to when it was taken.
        if JUDGING.try_with(Cell::get).unwrap_or(false) && unsafe { holds_secret(block, layout.size()) } {
            exempt(|| {
                let place = Backtrace::force_capture();
                FOUND.with_borrow_mut(|found| found.push(format!("a block of {} octets:\n{place}", layout.size())));
            });
        }
        // SAFETY: the caller's duties are `System`'s.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Whether one of the forms is in these octets.
///
/// # Safety
///
/// `length` octets from `block` on can be read, and have been written.
unsafe fn holds_secret(block: *const u8, length: usize) -> bool {
    // SAFETY: as above.
    let octets = unsafe { &*ptr::slice_from_raw_parts(block, length) };
    FORMS.with_borrow(|forms| {
        forms.iter().any(|form| {
            let first = form.first().copied().unwrap_or_default();
            let starts = octets.iter().enumerate().filter(|(_, octet)| **octet == first);
            starts.into_iter().any(|(at, _)| octets[at..].starts_with(form))
        })
    })
}
