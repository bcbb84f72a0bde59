// A bare http-proxy-3: node http-proxy-3.ts PORT ORIGIN_PORT

import { Agent, createServer } from 'node:http'
import { createProxyServer } from 'http-proxy-3'

const [, , port, originPort] = process.argv
// Without an agent it would open a connection for each request.
const agent = new Agent({ keepAlive: true, maxSockets: 64 })
const proxy = createProxyServer({ target: `http://127.0.0.1:${originPort}`, agent })
createServer((request, response) => proxy.web(request, response)).listen(Number(port), '127.0.0.1')
