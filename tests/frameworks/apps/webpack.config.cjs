module.exports = {
  mode: 'development',
  entry: './main.js',
  devServer: {
    // Its page would else dial the port that it listens on, whatever port the page came from.
    client: { webSocketURL: 'auto://0.0.0.0:0/ws' },
    static: { directory: __dirname, watch: false },
    setupMiddlewares(middlewares, { app }) {
      app.post('/post', (_request, response) => response.end('posted'));
      app.get('/away', (request, response) =>
        response.redirect(`http://${request.headers.host}/?redirected`),
      );
      return middlewares;
    },
  },
};
