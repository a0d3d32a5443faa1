package driver

// Code lets the tests outside see what a handler's error becomes.
var Code = code
