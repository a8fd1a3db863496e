// Express behind a proxy, as its documentation has it: it takes its own address from what the proxy says.
import { createRequire } from 'node:module';

const require = createRequire(`${process.env.MODULES}/`);
const express = require('express');
const { WebSocketServer } = require('ws');
const app = express();
app.set('trust proxy', true);
const isOwn = (request) => request.get('origin') === `${request.protocol}://${request.get('host')}`;
app.get('/', (_request, response) => response.send('<h1>Express page</h1>'));
app.post('/post', (request, response) => response.status(isOwn(request) ? 200 : 403).send('posted'));
app.get('/away', (request, response) =>
  response.redirect(`${request.protocol}://${request.host}/?redirected`),
);
const server = app.listen(Number(process.env.PORT), '127.0.0.1');
const sockets = new WebSocketServer({
  server,
  verifyClient: ({ req, origin }) => new URL(origin).host === req.headers.host,
});
sockets.on('connection', (socket) => socket.send('welcome'));
