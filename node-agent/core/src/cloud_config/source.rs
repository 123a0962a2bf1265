//! Where documents come from, beside a machine's own disk.

/// A data source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Strings in the machine's SMBIOS.
    Smbios,
    /// Another disk of a known label.
    NoCloud,
}

impl Source {
    /// Its name in `datasource_list`, cloud-init's where that has one.
    pub fn name(self) -> &'static str {
        match self {
            Self::Smbios => "SMBIOS",
            Self::NoCloud => "NoCloud",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::parse, *};

    #[test]
    fn a_list_says_which_are_asked() {
        for (text, smbios, nocloud) in [
            ("hostname: a", true, true),
            ("datasource_list: []", false, false),
            ("datasource_list: [None]", false, false),
            ("datasource_list: [NoCloud, Ec2]", false, true),
            ("datasource_list: [SMBIOS, NoCloud]", true, true),
        ] {
            let config = parse(&format!("#cloud-config\n{text}\n")).unwrap().config;
            assert_eq!(
                (config.asks(Source::Smbios), config.asks(Source::NoCloud)),
                (smbios, nocloud),
                "{text}"
            );
        }
    }

    #[test]
    fn a_default_host_name_is_for_a_machine_that_no_document_names() {
        let named = |text: &str| {
            let mut config = parse(text).unwrap().config;
            config.set_default_host_name("other".into());
            let steps = config.stages.into_values().flatten();
            steps.filter_map(|step| step.hostname).collect::<Vec<_>>()
        };
        assert_eq!(named("#cloud-config\nruncmd: [date]\n"), ["other"]);
        assert_eq!(named("#cloud-config\nhostname: mine\n"), ["mine"]);
        assert_eq!(named("stages: {boot: [{hostname: mine}]}"), ["mine"]);
    }
}
