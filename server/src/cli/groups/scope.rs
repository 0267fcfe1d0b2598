//! Which partitions a command speaks of: `--topic first --topic second:0,2`.

use crate::cli::{
    client::{AutoCreate, Client, ClientError, TopicPartition},
    outcome::CliError,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope(Vec<TopicScope>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct TopicScope {
    topic: String,
    /// `None`: all of them.
    partitions: Option<Vec<i32>>,
}

impl Scope {
    pub fn parse(flags: &[String]) -> Result<Scope, CliError> {
        let parse = |flag: &String| {
            let bad = || CliError::failed(format!("'{flag}' is not TOPIC or TOPIC:PARTITION,..."));
            let (topic, partitions) = match flag.split_once(':') {
                None => (flag.as_str(), None),
                Some((topic, list)) => {
                    let parsed: Result<Vec<i32>, _> =
                        list.split(',').map(|text| text.trim().parse()).collect();
                    (topic, Some(parsed.map_err(|_| bad())?))
                }
            };
            if topic.is_empty() || partitions.iter().flatten().any(|index| *index < 0) {
                return Err(bad());
            }
            Ok(TopicScope {
                topic: topic.to_string(),
                partitions,
            })
        };
        flags.iter().map(parse).collect::<Result<_, _>>().map(Scope)
    }

    /// The partitions, those of whole topics as the cluster knows them.
    pub fn partitions(&self, client: &mut Client) -> Result<Vec<TopicPartition>, CliError> {
        let names: Vec<String> = self.0.iter().map(|scope| scope.topic.clone()).collect();
        let metadata = client.metadata(Some(&names), AutoCreate::Forbid)?;
        let mut all = Vec::new();
        for scope in &self.0 {
            let topic = metadata
                .topics
                .get(&scope.topic)
                .ok_or_else(|| CliError::failed(format!("topic '{}' is unknown", scope.topic)))?;
            ClientError::check(topic.error_code, || format!("topic '{}'", scope.topic))?;
            let indices = match &scope.partitions {
                Some(given) => given.clone(),
                None => topic.partitions.iter().map(|p| p.index).collect(),
            };
            all.extend(
                indices
                    .into_iter()
                    .map(|index| (scope.topic.clone(), index)),
            );
        }
        all.sort();
        all.dedup();
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_may_name_partitions() {
        let check = |flag: &str, want: Option<(&str, Option<Vec<i32>>)>| {
            let got = Scope::parse(&[flag.to_string()]).ok();
            let want = want.map(|(topic, partitions)| {
                Scope(vec![TopicScope {
                    topic: topic.to_string(),
                    partitions,
                }])
            });
            assert_eq!(got, want, "{flag}");
        };
        check("t", Some(("t", None)));
        check("t:0,2", Some(("t", Some(vec![0, 2]))));
        check("t:", None);
        check("t:-1", None);
        check(":0", None);
    }
}
