// A real Better Auth, all in memory: people sign up with an address and a password and get JWTs at `/api/auth/token`;
// MCP clients get theirs by OAuth. Started with a port and the resources that it may issue tokens for.
// Added for the tests: `/fetches` returns how often the keys were fetched, and `/age` makes the keys old.
import { createServer } from "node:http";
import { oauthProvider, oauthProviderAuthServerMetadata } from "@better-auth/oauth-provider";
import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";
import { toNodeHandler } from "better-auth/node";
import { jwt } from "better-auth/plugins";

const TABLES = [
  ...["user", "session", "account", "verification", "jwks"],
  ...["oauthClient", "oauthRefreshToken", "oauthAccessToken", "oauthConsent"],
  ...["oauthResource", "oauthClientResource", "oauthClientAssertion"],
];

const [port, ...resources] = process.argv.slice(2);
const database = Object.fromEntries(TABLES.map((name) => [name, []]));
let fetches = 0;
let answer;

const server = createServer((request, response) => answer(request, response));
server.listen(Number(port), "127.0.0.1", () => {
  const url = `http://127.0.0.1:${server.address().port}`;
  answer = answering(provider(url));
  console.log(`Better Auth is at ${url}`);
});

function provider(url) {
  return betterAuth({
    baseURL: url,
    secret: "a secret of thirty-two bytes or more",
    database: memoryAdapter(database),
    emailAndPassword: { enabled: true },
    telemetry: { enabled: false },
    plugins: [
      jwt({ jwt: { issuer: url } }),
      oauthProvider({
        loginPage: "/sign-in",
        consentPage: "/consent",
        resources,
        clientRegistrationDefaultResources: resources,
        allowDynamicClientRegistration: true,
        allowUnauthenticatedClientRegistration: true,
        silenceWarnings: { oauthAuthServerConfig: true, openidConfig: true },
      }),
    ],
  });
}

function answering(auth) {
  const answerByBetterAuth = toNodeHandler(auth);
  const answerWithMetadata = toNodeHandler({ handler: oauthProviderAuthServerMetadata(auth) });
  return (request, response) => {
    switch (request.url) {
      case "/fetches":
        return response.end(String(fetches));
      case "/age":
        for (const key of database.jwks) key.expiresAt = new Date();
        return response.end();
      case "/.well-known/oauth-authorization-server":
        return answerWithMetadata(request, response);
      case "/api/auth/jwks":
        fetches += 1;
    }
    return answerByBetterAuth(request, response);
  };
}
