//! What a run is: model, stage cut, numeric mode, schedules, as pure data with one canonical form
