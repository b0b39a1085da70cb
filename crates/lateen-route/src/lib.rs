//! xDS routes and load balancers compiled into matchers that decide, and explain, where a request goes.
