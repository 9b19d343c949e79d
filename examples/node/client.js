// Greets the app "server" through its own sidecar.
//
//   dapr run --app-id client --dapr-grpc-port 50007 -- node client.js
'use strict';

const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const proto = path.join(__dirname, '..', 'greeter.proto');
const { helloworld } = grpc.loadPackageDefinition(protoLoader.loadSync(proto));

const port = process.env.DAPR_GRPC_PORT || '50007'; // set by dapr run
const client = new helloworld.Greeter(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
const request = { name: 'Darth Malgus' };
const options = () => ({ deadline: Date.now() + 10000 });

function sayHello(metadata) {
  return new Promise((resolve, reject) => {
    client.sayHello(request, metadata, options(), (error, reply) => {
      if (error) reject(error);
      else resolve(reply);
    });
  });
}

async function main() {
  const metadata = new grpc.Metadata();
  metadata.add('dapr-app-id', 'server');
  const reply = await sayHello(metadata);
  console.log(`Greeting: ${reply.message}`);

  metadata.add('dapr-stream', 'true');
  for await (const each of client.sayHelloStream(request, metadata, options())) {
    console.log(`Greeting: ${each.message}`);
  }
}

main().finally(() => client.close());
