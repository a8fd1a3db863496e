export default {
  plugins: [
    {
      name: 'api',
      configureServer(server) {
        server.middlewares.use('/post', (_request, response) => response.end('posted'));
        server.middlewares.use('/away', (request, response) => {
          response.writeHead(302, { location: `http://${request.headers.host}/?redirected` });
          response.end();
        });
      },
    },
  ],
};
