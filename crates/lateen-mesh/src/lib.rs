//! The index of services, endpoints and policies, and its translation to xDS per proxy. Pure.
