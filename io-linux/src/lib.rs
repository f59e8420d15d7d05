//! tlb
