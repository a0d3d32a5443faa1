// Package console is the subset of the RouterOS console language that the simulated RDS understands.
//
// It is written from the manual and from what was seen of real devices, not from the driver's script builder: it
// judges the driver's quoting. Where the device is known to be unforgiving it is unforgiving too, and where nobody
// knows, it takes the harsher reading and says so beside the code ([V] manual, [R] seen, [S] third party,
// [I] inferred, [U] unknown).
//
// Harsher than a device may be, on purpose:
//   - operators stand in parentheses only, and both sides of && and || are always evaluated;
//   - a variable must be declared where it is used, globals do not exist, commands and arguments are not abbreviated;
//   - the commands of the language begin with a colon, blocks with a brace, and a semicolon divides any two commands;
//   - values without quotes consist of letters, digits and -_./:*,@+% only; inside quotes control characters are
//     refused, as are escapes that the manual does not list and a dollar that begins no substitution;
//   - nothing is converted in comparisons; find without `where` knows nothing but equality;
//   - plain item numbers, which belong to interactive sessions, address nothing.
//
// The package knows the language only. Disks, files and users belong to a Device, which it reaches through the small
// interfaces of device.go.
package console
