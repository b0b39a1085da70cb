//! The data plane: listeners, codecs, pools, filters, statistics, access log and admin.
