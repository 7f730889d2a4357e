// Runs a compiled client with the service in the environment, and writes what the client returned as JSON.

const { run } = await import(`./compiled/${process.argv[2]}.js`);
console.log(JSON.stringify(await run(JSON.parse(process.env.SERVICE))));
