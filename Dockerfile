# Two stages: one compiles, the other carries what runs. Node comes with the image, so the second leaves out the optional
# per-platform Node packages (150 MB).
FROM node:26-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts
COPY tsconfig.json rolldown.config.ts ./
COPY src ./src
RUN npm run build

FROM node:26-slim
ENV NODE_ENV=production
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --omit=optional --ignore-scripts && npm cache clean --force
COPY --from=build /app/dist ./dist
COPY bin ./bin
COPY config ./config
# What Node compiles in a first start is kept in the image, so that every start finds it.
ENV NODE_COMPILE_CACHE=/app/compiled
RUN install -d -o node compiled
USER node
RUN ["timeout", "--preserve-status", "5", "node", "bin/weirgate.js", "run", "-c", "config/weirgate.yaml"]
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=2s --start-period=5s \
  CMD ["node", "-e", "fetch('http://127.0.0.1:' + (process.env.PORT || 8080) + '/health').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
# Exec form: signals reach the gateway itself, which drains on SIGTERM.
CMD ["node", "bin/weirgate.js", "run", "-c", "config/weirgate.yaml"]
