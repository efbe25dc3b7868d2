"""Studies: what is measured of methods, routers and parts (`ets bench`), and the papers' tables (`ets repro`)."""
