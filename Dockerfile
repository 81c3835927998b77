# The service as an image: `loyalty serve` by default, any other command of `loyalty` instead. docs/operations.md.
# One stage: every dependency is a wheel, so no compiler comes in that a second stage would have to leave behind.
FROM python:3.13-slim

ENV PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /srv/loyalty

# Dependencies first: they change less often than the code, and this layer is kept until the lock file does.
COPY requirements.lock ./
RUN pip install --require-hashes --only-binary :all: -r requirements.lock

# Editable: the service looks for `migrations/`, `samples/` and `docs/examples/` beside `app/`.
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY migrations migrations
COPY samples samples
COPY docs/examples docs/examples
RUN pip install --no-deps --no-build-isolation --editable . \
    && python -m compileall -q app migrations \
    && install -d -o 10001 -g 10001 /data

# By number, so that a platform can see that it is not root. /data is where it may write: an SQLite file, if it is used.
USER 10001:10001

ENV LOYALTY_HOST=0.0.0.0
EXPOSE 8000

HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 CMD ["python", "-c", "\
import os, urllib.request; \
port = os.environ.get('PORT') or os.environ.get('LOYALTY_PORT', '8000'); \
urllib.request.urlopen('http://127.0.0.1:' + port + '/livez', timeout=2)"]

ENTRYPOINT ["loyalty"]
CMD ["serve"]
