// Azurite's blob service without its collector of unused bytes.
//
// It collects every ten minutes. With tens of thousands of blobs that stops every request for a minute and a half,
// seen in Azurite 3.35. It also pages through all blobs by their names alone, so that bytes which are in use count
// as unused where a page ends between two blobs of one name.
"use strict";

const constants = require("azurite/dist/src/blob/utils/constants");

constants.DEFAULT_GC_INTERVAL_MS = 2 ** 31 - 1; // the longest that a timer takes: 25 days
require("azurite/dist/src/blob/main");
