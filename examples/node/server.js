// The Greeter of Dapr's how-to.
//
//   dapr run --app-id server --app-port 50051 -- node server.js
'use strict';

const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const proto = path.join(__dirname, '..', 'greeter.proto');
const { helloworld } = grpc.loadPackageDefinition(protoLoader.loadSync(proto));

function sayHello(call, callback) {
  console.log(`Received: ${call.request.name}`);
  callback(null, { message: `Hello ${call.request.name}` });
}

function sayHelloStream(call) {
  console.log(`Received: ${call.request.name}`);
  for (let i = 1; i <= 3; i++) {
    call.write({ message: `Hello ${call.request.name}, ${i} of 3` });
  }
  call.end();
}

const port = process.env.APP_PORT || '50051'; // set by dapr run
const server = new grpc.Server();
server.addService(helloworld.Greeter.service, { sayHello, sayHelloStream });
server.bindAsync(`127.0.0.1:${port}`, grpc.ServerCredentials.createInsecure(), (error) => {
  if (error) throw error;
  console.log(`server listening at ${port}`);
});
