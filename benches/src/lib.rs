//! Criterion benches of tlb's engine: see the `benches` folder of this package.
