// A bare @fastify/http-proxy: node fastify-proxy.ts PORT ORIGIN_PORT

import httpProxy from '@fastify/http-proxy'
import fastify from 'fastify'

const [, , port, originPort] = process.argv
const server = fastify()
await server.register(httpProxy, { upstream: `http://127.0.0.1:${originPort}` })
await server.listen({ port: Number(port), host: '127.0.0.1' })
