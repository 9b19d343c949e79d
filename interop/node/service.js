// What the interop client and server share: the service, the names of the fields that are echoed,
// the arguments.
'use strict';

const path = require('node:path');
const { parseArgs } = require('node:util');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const proto = path.join(__dirname, '..', 'testing.proto');
const loaded = protoLoader.loadSync(proto, {
  keepCase: true,
  defaults: true,
  enums: String,
});

exports.testing = grpc.loadPackageDefinition(loaded).grpc.testing;
exports.ECHO_INITIAL = 'x-grpc-test-echo-initial';
exports.ECHO_TRAILING = 'x-grpc-test-echo-trailing-bin';

/** The values of `--name=value` or `--name value`. */
exports.argumentsNamed = (...names) => {
  const options = Object.fromEntries(names.map((name) => [name, { type: 'string' }]));
  return parseArgs({ options }).values;
};
