//! Instances: from the object to a guest that runs, and to its end.
//!
//! * [`life`]: one instance's way through its phases
//! * [`slot`]: what is known of it while it runs
//! * [`launcher`]: the pod that stands for it
//! * [`claims`]: addresses that outlive its pods

pub(crate) mod claims;
pub(crate) mod launcher;
pub(crate) mod life;
pub(crate) mod slot;
