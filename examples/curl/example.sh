#!/bin/sh
# Changes an organization and follows its change log, over REST with curl.
#
# EXAMPLE_HTTP is the service's address, such as http://127.0.0.1:8080, ORGD_TOKEN a token,
# EXAMPLE_ORGANIZATION the id of an organization, EXAMPLE_ENTRIES how many changes to show before the end;
# without it there is none.
set -eu

url=${EXAMPLE_HTTP:?}/v1/organizations/${EXAMPLE_ORGANIZATION:?}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM
# In a file of ours: what stands in a command line, others on the machine can read.
printf 'Authorization: Bearer %s\n' "${ORGD_TOKEN:?}" >"$folder/credential"

# Makes a call; $status and $etag are the answer's. curl makes it again, after the time of
# Retry-After, where nobody answered or trying again helps. Every call here may be repeated: one that
# reads changes nothing, and an update has its Idempotency-Key.
call() {
	answer=$(curl --silent --show-error --max-time 10 \
		--retry 3 --retry-connrefused --retry-max-time 30 \
		--header @"$folder/credential" --output "$folder/body" \
		--write-out '%{http_code} %header{etag}' "$@")
	status=${answer%% *} etag=${answer#* }
}

# update BODY [CURL'S ARGUMENTS...]
update() {
	body=$1
	shift
	call --request PUT --header 'Content-Type: application/json' \
		--header "Idempotency-Key: $(uuid)" --data "$body" "$@" "$url"
}

# A random UUID.
uuid() {
	od -An -N16 -tx1 /dev/urandom | tr -d ' \n' |
		sed 's/^\(.\{8\}\)\(.\{4\}\).\(.\{3\}\).\(.\{3\}\)/\1-\2-4\3-8\4-/'
}

# The members of the JSON body, each on a line. Within a text a quote has a backslash before it, so
# that no value can be taken for a member.
members() {
	sed 's/[[{,]"/\
"/g' "$folder/body"
}

# The text of the first member of a name, as JSON writes it.
member() {
	members | sed -n 's/^"'"$1"'":"\(.*\)"[]},]*$/\1/p' | sed -n 1p
}

# Ends where the answer is a refusal, with its reason, the id to ask the service's people about, and
# its text.
must_succeed() {
	if [ "$status" != 200 ]; then
		printf '%s (request %s): %s\n' "$(member reason)" "$(member requestId)" "$(member detail)" >&2
		exit 1
	fi
}

change_name() {
	call "$url"
	must_succeed
	old_etag=$etag old_name=$(member name)
	# The same name again would change nothing, and the etag read before would not be stale.
	name='By the curl example'
	if [ "$old_name" = "$name" ]; then name="$name, again"; fi
	# With If-Match the update is made only if nobody else has changed what was read.
	update "{\"name\": \"$name\"}" --header "If-Match: $old_etag"
	must_succeed
	printf 'name: %s -> %s\n' "$old_name" "$name"

	update '{"name": "Too late"}' --header "If-Match: $old_etag"
	if [ "$status" != 412 ]; then
		must_succeed
		echo 'a stale etag was taken' >&2
		exit 1
	fi
	printf 'stale etag refused: %s\n' "$(member reason)"
}

clear_subscription() {
	update '{"subscriptionId": null}'
	must_succeed
	echo 'subscription cleared'
}

# The changes of a page: "VERSION by SUBJECT: FIELDS", each on a line.
changes() {
	members | awk -F '"' '
		function tell() { if (version) print version " by " subject ":" fields }
		$2 == "organizationId" { tell(); version = 0; fields = "" }
		$2 == "version" { version = substr($3, 2) + 0 }
		$2 == "subject" { subject = $4 }
		$2 == "field" { fields = fields (fields ? ", " : " ") $4 }
		END { tell() }'
}

# follow VERSION ENTRIES shows the changes after a version, those to come too, until there were so
# many; 0: without end.
follow() {
	after=$1 left=$2 token=
	while :; do
		# Small pages, so that the example turns them; the service gives 500 at most.
		call --get --data pageSize=2 --data-urlencode "pageToken=$token" "$url/changes"
		must_succeed
		changes >"$folder/changes"
		while read -r version change; do
			if [ "$version" -gt "$after" ]; then
				printf 'change %s %s\n' "$version" "$change"
				after=$version left=$((left - 1))
				if [ "$left" -eq 0 ]; then return; fi
			fi
		done <"$folder/changes"
		next=$(member nextPageToken)
		if [ -n "$next" ]; then
			token=$next
		else
			# The last page grows as changes come, so it is read again.
			sleep 1
		fi
	done
}

change_name
clear_subscription
follow 0 "${EXAMPLE_ENTRIES:-0}"
