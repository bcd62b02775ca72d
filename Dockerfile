# One image for every role: the command names it (standalone, proxy, coordinator, querynode, datanode,
# indexnode). hnswlib is compiled in the first stage only.
FROM python:3.11-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends build-essential && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN python -m venv /opt/sheafdb && /opt/sheafdb/bin/pip install --no-cache-dir -c constraints.txt .

FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home sheafdb && mkdir /data /cache && chown sheafdb /data /cache
COPY --from=build /opt/sheafdb /opt/sheafdb
ENV SHEAFDB_CACHE__DIR=/cache
USER 10001
WORKDIR /data
VOLUME /data
# The Milvus protocol, metrics and health, the roles' own calls.
EXPOSE 19530 9091 21530
ENTRYPOINT ["/opt/sheafdb/bin/sheafdb"]
CMD ["standalone", "--data", "/data", "--host", "0.0.0.0"]
