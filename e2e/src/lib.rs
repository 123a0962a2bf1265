//! Whole machines: tools, images, a control plane and virtual machines.
